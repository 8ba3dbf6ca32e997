// Breakpoints on I/O ports, with CR4.DE. SDM vol. 3B §17.2.4, 17.3.1.3.
#define LONG
#include "guest.inc"
GUEST "iobreak"
#include "breakpoints.inc"

  .code64
guest_main:
  mov %cr4, %rax
  or $8, %eax
  mov %rax, %cr4
  ARM 2, 0x80, 2, 0
  TRAPS "OUT to the watched port", 4, "out %al,$0x80"
  TRAPS "IN from it", 4, "in $0x80,%al"
  SILENT "another port", "out %al,$0x81"
  TRAPS "OUTSB", 4, "outsb", "mov $0x80,%edx; mov $cells,%esi"
  SILENT "memory at that address", "mov %al,cells"
  DISARM
  FINISH

  .section .bss
cells: .skip 64
