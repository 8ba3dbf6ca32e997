//! The ports of the core, on the bare machine.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kasane_metal_cpu::{self as cpu, MAX_CPUS, scale::Scale, vector};
use kasane_metal_memory::FrameRam;
use kasane_metal_vm::{Engine, Home};
use kasane_ports::{Clock, Entropy, HeavyBarrier, Ticks};

use super::processors::apic_id;
use super::serial::{Screen, log};
use super::{runner, runtime};

/// Time since the clock was made.
struct MetalClock {
    began_ns: u64,
    wall_at_start_s: u64,
}

impl Clock for MetalClock {
    fn now_ns(&self) -> u64 {
        cpu::now_ns().wrapping_sub(self.began_ns)
    }
    fn ticks(&self) -> Option<Ticks> {
        let multiplier = Scale::of_frequency(cpu::ticks_per_second()).fraction();
        let at_zero = (u128::from(cpu::tsc()).wrapping_mul(multiplier.into()) >> 64) as u64;
        Some(Ticks { multiplier, offset: self.now_ns().wrapping_sub(at_zero) })
    }
    fn wall_clock_s(&self) -> u64 {
        self.wall_at_start_s.saturating_add(self.now_ns() / 1_000_000_000)
    }
}

/// RDRAND; where there is none, numbers that are no secret.
struct MetalEntropy;

static WEAK: AtomicU64 = AtomicU64::new(0x9E37_79B9_7F4A_7C15);

/// SplitMix64 over the counter's jitter.
fn weak() -> u64 {
    let step = cpu::tsc() | 1;
    let mut z = WEAK.fetch_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15), Ordering::Relaxed);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl Entropy for MetalEntropy {
    fn fill(&self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let bytes = cpu::random().unwrap_or_else(weak).to_le_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
    }
}

/// Barriers that each processor has made when asked.
static MADE: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// A barrier by an interrupt to every other processor.
struct MetalBarrier;

impl HeavyBarrier for MetalBarrier {
    fn synchronize(&self) {
        core::sync::atomic::fence(Ordering::SeqCst);
        let own = cpu::current();
        for number in (0..cpu::online()).filter(|number| *number != own) {
            let Some(made) = MADE.get(number as usize) else { continue };
            let before = made.load(Ordering::SeqCst);
            cpu::send_ipi(apic_id(number), vector::BARRIER);
            while made.load(Ordering::SeqCst) == before {
                core::hint::spin_loop();
            }
        }
        core::sync::atomic::fence(Ordering::SeqCst);
    }
    fn relax(&self) {
        // Who is waited for may be in a guest that runs natively: an interrupt brings it out.
        let own = cpu::current();
        for number in (0..cpu::online()).filter(|number| *number != own) {
            cpu::send_ipi(apic_id(number), vector::POKE);
        }
        cpu::delay_us(5);
    }
}

/// AMD-V or VT-x where it is there.
fn best_engine() -> Engine {
    let (name, accelerators): (_, fn(&_) -> _) = if kasane_metal_svm::is_there() {
        ("svm", kasane_metal_svm::accelerators)
    } else if kasane_metal_vmx::is_there() {
        ("vmx", kasane_metal_vmx::accelerators)
    } else {
        return Engine::Interp;
    };
    Engine::Assisted { name, accelerators, hidden: kasane_metal_assist::hidden_features() }
}

/// What the bare machine lends to guests.
pub(crate) fn home() -> Home {
    cpu::set_handler(vector::BARRIER, |_| {
        if let Some(made) = MADE.get(cpu::current() as usize) {
            made.fetch_add(1, Ordering::SeqCst);
        }
    });
    if cpu::random().is_none() {
        log!("this processor has no RDRAND: guests get random numbers that are no secret");
    }
    Home {
        spawner: runtime::get(),
        now_ns: cpu::now_ns,
        clock: || {
            let (began_ns, wall_at_start_s) = (cpu::now_ns(), cpu::wall_clock());
            Arc::new(MetalClock { began_ns, wall_at_start_s })
        },
        tsc_hz: cpu::ticks_per_second(),
        entropy: Arc::new(MetalEntropy),
        barrier: Arc::new(MetalBarrier),
        ram: |len| Ok(Box::new(FrameRam::new(len)?)),
        runner: Arc::new(runner::Runner),
        best: best_engine(),
        news: runtime::monitor_waker(),
        screen: Arc::new(Screen),
    }
}
