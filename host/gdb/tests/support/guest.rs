//! A machine for the tests: the interpreter's vCPUs on threads, 4 MiB of RAM, no devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, FeatureSet};
use kasane_cpu::engine::DebugControl;
use kasane_cpu::{CpuState, Entry, Exit, Partition, StateSet, Vcpu};
use kasane_host_gdb::{DebugTarget, Ended, PhysicalView, Run, Stop, TargetGone, VcpuStop};
use kasane_host_runtime::{Barrier, HostClock, HostEntropy};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_spec_x86::control::{cr0, cr4, efer};
use parking_lot::{Condvar, Mutex};

/// Where the guest's code is, in the kernel's half of the address space; it maps to 0x1000.
pub(crate) const CODE: u64 = 0xFFFF_FFFF_8000_1000;
/// Where the guest counts; it maps to 0x2000.
pub(crate) const COUNTER: u64 = 0xFFFF_FFFF_8000_2000;
/// The instruction after which the loop begins.
pub(crate) const LOOP: u64 = CODE + 5;
/// The store into the counter.
pub(crate) const STORE: u64 = CODE + 8;
/// The load from the counter.
pub(crate) const LOAD: u64 = CODE + 14;

/// `mov eax, 1`, then without end `add eax, 2`, a store to and a load from `COUNTER`.
const PROGRAM: [u8; 22] = [
    0xB8, 1, 0, 0, 0, // mov eax, 1
    0x83, 0xC0, 2, // add eax, 2
    0x89, 0x05, 0xF2, 0x0F, 0, 0, // mov [rip + 0xFF2], eax
    0x8B, 0x1D, 0xEC, 0x0F, 0, 0, // mov ebx, [rip + 0xFEC]
    0xEB, 0xEF, // jmp to the add
];

/// A machine under test.
pub(crate) struct Guest {
    ram: Arc<Ram>,
    vcpus: Vec<Mutex<Box<dyn Vcpu>>>,
    kicks: Vec<Arc<dyn kasane_ports::Kick>>,
    allowed: Mutex<Vec<bool>>,
    changed: Condvar,
    tell: Mutex<Sender<Stop>>,
    stops: Mutex<Receiver<Stop>>,
    resets: AtomicU32,
}

impl Guest {
    /// Builds the machine, paused, with all vCPUs at `CODE`, and starts its threads.
    pub(crate) fn start(cpus: u32) -> Arc<Self> {
        let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 4 << 20)]));
        fill(&ram);
        let apics = Arc::new(ApicBus::new(cpus));
        let partition = InterpPartition::new(InterpConfig {
            ram: ram.clone(),
            apics,
            clock: Arc::new(HostClock::new()),
            entropy: Arc::new(HostEntropy),
            barrier: Arc::new(Barrier::detect()),
            model: CpuModel::new(CpuModelName::X86_64V2, FeatureSet::EMPTY),
            tsc_hz: 1_000_000_000,
            passthrough: Arc::new(|| None),
            accelerator: Arc::new(|_| None),
        });
        let vcpus: Vec<_> = (0..cpus).map(|n| partition.new_vcpu(n).unwrap()).collect();
        let (tell, stops) = channel();
        let guest = Arc::new(Self {
            kicks: vcpus.iter().map(|vcpu| vcpu.kicker()).collect(),
            vcpus: vcpus.into_iter().map(Mutex::new).collect(),
            ram,
            allowed: Mutex::new(vec![false; cpus as usize]),
            changed: Condvar::new(),
            tell: Mutex::new(tell),
            stops: Mutex::new(stops),
            resets: AtomicU32::new(0),
        });
        guest.boot();
        for n in 0..cpus as usize {
            let guest = Arc::clone(&guest);
            std::thread::spawn(move || guest.live(n));
        }
        guest
    }

    fn boot(&self) {
        for vcpu in &self.vcpus {
            vcpu.lock().write(StateSet::ALL, &start_state());
        }
    }

    fn live(&self, n: usize) {
        let mut entry = Entry::Resume;
        loop {
            let mut allowed = self.allowed.lock();
            while !allowed[n] {
                self.changed.wait(&mut allowed);
            }
            let mut vcpu = self.vcpus[n].lock();
            drop(allowed);
            loop {
                let exit = vcpu.run(entry).unwrap();
                entry = match exit {
                    Exit::PortRead { .. } | Exit::MmioRead { .. } => Entry::Value(u64::MAX),
                    Exit::MsrRead { .. } | Exit::MsrWrite { .. } => Entry::Fault,
                    _ => Entry::Resume,
                };
                match exit {
                    Exit::Kicked => break,
                    Exit::Debug { rip, dr6 } => {
                        self.allowed.lock().fill(false);
                        let stop = VcpuStop { vcpu: n as u32, rip, dr6 };
                        self.tell.lock().send(Stop::Vcpu(stop)).unwrap();
                        break;
                    }
                    Exit::TripleFault => {
                        self.allowed.lock().fill(false);
                        self.tell.lock().send(Stop::Ended(Ended::Crashed)).unwrap();
                        return;
                    }
                    Exit::Halt => std::thread::sleep(Duration::from_millis(1)),
                    _ => {}
                }
            }
        }
    }

    /// How often it was reset.
    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Whether some vCPU may run.
    pub(crate) fn runs(&self) -> bool {
        self.allowed.lock().iter().any(|one| *one)
    }

    /// The counter in memory.
    pub(crate) fn counter(&self) -> u32 {
        self.ram.load_u32(0x2000).unwrap()
    }

    fn paused(&self) -> Result<(), TargetGone> {
        if self.runs() { Err(TargetGone) } else { Ok(()) }
    }
}

fn fill(ram: &Ram) {
    ram.write(0x1000, &PROGRAM).unwrap();
    // 2 MiB at the kernel's address; nothing else is mapped.
    for (at, entry) in [(0x8FF8, 0x9003u64), (0x9FF0, 0xA003), (0xA000, 0x83)] {
        ram.store_u64(at, entry).unwrap();
    }
}

fn start_state() -> CpuState {
    let mut state = CpuState::reset(true);
    state.cr0 |= cr0::PE | cr0::PG;
    state.cr4 |= cr4::PAE;
    state.efer = efer::LME | efer::LMA;
    state.cr3 = 0x8000;
    state.cs.base = 0;
    state.cs.limit = u32::MAX;
    state.cs.access = 0xA09B; // 64-bit code
    state.cs.selector = 8;
    state.rip = CODE;
    state
}

impl DebugTarget for Guest {
    fn vcpus(&self) -> u32 {
        self.vcpus.len() as u32
    }
    fn memory(&self) -> Arc<dyn GuestMemory> {
        self.ram.clone()
    }
    fn physical_view(&self) -> PhysicalView {
        PhysicalView { bits: 40, a20_mask: u64::MAX }
    }
    fn description(&self) -> String {
        "a guest for tests\n".to_owned()
    }
    fn pause(&self) -> Result<(), TargetGone> {
        self.allowed.lock().fill(false);
        for (vcpu, kick) in self.vcpus.iter().zip(&self.kicks) {
            kick.kick();
            drop(vcpu.lock());
        }
        Ok(())
    }
    fn resume(&self, run: &Run) {
        let mut allowed = self.allowed.lock();
        for (n, one) in allowed.iter_mut().enumerate() {
            *one = match run {
                Run::All => true,
                Run::Only(some) => some.contains(&(n as u32)),
            };
        }
        self.changed.notify_all();
    }
    fn read(&self, vcpu: u32, set: StateSet) -> Result<CpuState, TargetGone> {
        self.paused()?;
        let mut state = CpuState::reset(false);
        self.vcpus.get(vcpu as usize).ok_or(TargetGone)?.lock().read(set, &mut state);
        Ok(state)
    }
    fn write(&self, vcpu: u32, set: StateSet, state: CpuState) -> Result<(), TargetGone> {
        self.paused()?;
        self.vcpus.get(vcpu as usize).ok_or(TargetGone)?.lock().write(set, &state);
        Ok(())
    }
    fn set_debug(&self, vcpu: u32, control: DebugControl) -> Result<(), TargetGone> {
        self.paused()?;
        self.vcpus.get(vcpu as usize).ok_or(TargetGone)?.lock().set_debug(&control);
        Ok(())
    }
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.boot();
        self.tell.lock().send(Stop::Restarted).unwrap();
    }
    fn kill(&self) {
        self.tell.lock().send(Stop::Ended(Ended::Normally)).unwrap();
    }
    fn next_stop(&self) -> Stop {
        loop {
            let next = self.stops.lock().recv_timeout(Duration::from_millis(1));
            match next {
                Ok(stop) => return stop,
                Err(_) => std::thread::yield_now(),
            }
        }
    }
    fn pending_stop(&self) -> Option<VcpuStop> {
        match self.stops.lock().try_recv() {
            Ok(Stop::Vcpu(stop)) => Some(stop),
            Ok(other) => {
                self.tell.lock().send(other).unwrap();
                None
            }
            Err(_) => None,
        }
    }
}
