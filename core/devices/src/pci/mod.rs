//! PCI: configuration space, BARs, interrupts.
