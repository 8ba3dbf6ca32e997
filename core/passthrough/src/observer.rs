//! Who wants to know of code that was made: a profiler's file, for one.

/// Where code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOrigin {
    /// Our own: the ways in and out, and what translated code calls.
    Stubs,
    /// Translated from the guest's supervisor code at this RIP.
    Kernel(u64),
    /// Translated from the guest's user code at this RIP.
    User(u64),
}

/// Code that can run from now on, in the place of any that was there before.
#[derive(Clone, Copy, Debug)]
pub struct PlacedCode<'a> {
    /// What it was made from.
    pub origin: CodeOrigin,
    /// Where it runs on the host.
    pub address: u64,
    /// Its bytes as they are now; displacements of jumps in it may change later.
    pub bytes: &'a [u8],
}

/// Is told of code when it is placed.
pub trait CodeObserver: Send + Sync {
    /// Called before the code runs, by the thread that made it, under the lock of its arena: it
    /// has to be quick, and must not make code itself.
    fn placed(&self, code: &PlacedCode<'_>);
}
