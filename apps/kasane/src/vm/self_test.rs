//! Whether an engine works here: a small guest that does what an operating system does.
//!
//! The guest's kernel lives in the upper half, and its one program in ring 3. The program makes
//! two system calls (SYSCALL, SWAPGS, SYSRET), an invalid instruction that the kernel skips
//! (exception from ring 3 through the IDT, stack switch by the TSS, IRETQ) and a write to a page
//! that the kernel only then maps (page fault, INVLPG). Then the kernel changes to a second set of
//! page tables, turns global pages off and on, and looks whether all left the traces it must.
//! A processor that only executes `add` and `hlt` passes none of it.

use std::sync::Arc;
use std::time::Duration;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::CpuModelName;
use kasane_cpu::{CpuState, Entry, Exit, Partition, SegmentRegister, StateSet, Vcpu};
use kasane_host_runtime::{Barrier, HostClock, HostEntropy};
use kasane_interp::accelerator::Accelerator;
use kasane_interp::{InterpConfig, InterpPartition, MakeAccelerator};
use kasane_memory::{GuestMemory, MemoryError, Ram, RamSlot};
use kasane_passthrough::HostFeatures;
use kasane_spec_x86::{control, flags, msr};
use kasane_translate::{Policy, Shared, Translated};

use super::cpu_model;

/// Where guest-physical 0 is in the kernel's half.
const KERNEL: u64 = 0xFFFF_8000_0000_0000;
/// The same, in the second page tables only.
const ALIAS: u64 = 0xFFFF_8080_0000_0000;
const RAM_BYTES: usize = 2 << 20;

// Guest-physical addresses.
const PML4: u64 = 0x1000;
const PDPT_USER: u64 = 0x2000;
const PD_USER: u64 = 0x3000;
const PDPT_KERNEL: u64 = 0x4000;
const PD_KERNEL: u64 = 0x5000;
const PT_USER: u64 = 0x6000;
const GDT: u64 = 0x7000;
const IDT: u64 = 0x8000;
const TSS: u64 = 0x9000;
const SECOND_PML4: u64 = 0xA000;
/// What GS points to in the kernel: counters of system calls, invalid opcodes and page faults.
const COUNTERS: u64 = 0xB000;
const CODE: u64 = 0x1_0000;
const KERNEL_STACK: u64 = 0x1_F000;
const USER_CODE: u64 = 0x2_0000;
/// Mapped by the page-fault handler.
const LATE_PAGE: u64 = 0x2_1000;
const USER_STACK: u64 = 0x2_2000;

// The program's addresses.
const USER_CODE_VA: u64 = 0x40_0000;
const USER_STACK_TOP_VA: u64 = 0x40_2000;
const LATE_PAGE_VA: u64 = 0x40_3000;

const KERNEL_CS: u16 = 0x08;
const KERNEL_SS: u16 = 0x10;
const USER_SS: u16 = 0x1B;
const USER_CS: u16 = 0x23;
const TSS_SELECTOR: u16 = 0x28;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 0x80;
const GLOBAL: u64 = 0x100;

/// System call of the program: the end.
const CALL_END: u64 = 60;
/// What the program writes to the late page.
const TRACE: u64 = 0x1234_5678;
/// Where the kernel reports, and what if all is well.
const REPORT_PORT: u16 = 0xE9;
const WELL: u32 = 0x42;
/// Far more instructions than it needs.
const BUDGET: u64 = 100_000;
/// Far more time than it needs. An engine counts no instructions that runs them itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the interpreter's self-test says.
///
/// # Errors
/// Why the engine does not work here.
pub fn self_test(host: HostFeatures) -> Result<String, String> {
    let mut vcpu = processor(host, Arc::new(|_| None))?;
    vcpu.set_budget(Some(BUDGET));
    judge(&mut *vcpu)
}

/// What the translator's says, which makes it translate whatever it meets.
///
/// # Errors
/// Why the engine does not work here.
pub(super) fn translator_self_test(
    host: HostFeatures,
    shared: &Arc<Shared>,
) -> Result<String, String> {
    let shared = Arc::clone(shared);
    let accelerator = Arc::new(move |index| -> Option<Box<dyn Accelerator>> {
        let mut translated = Translated::new(Arc::clone(&shared), index);
        translated.set_policy(Policy { threshold: 1, ..Policy::default() });
        Some(Box::new(translated))
    });
    let mut vcpu = processor(host, accelerator)?;
    let kicker = vcpu.kicker();
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if finished.recv_timeout(PATIENCE).is_err() {
            kicker.kick();
        }
    });
    let verdict = judge(&mut *vcpu);
    let _: Result<(), _> = done.send(()); // it may have lost its patience
    let _: Result<(), _> = watchdog.join();
    let translated = vcpu.counts().into_iter().any(|(name, n)| name == "blocks" && n > 0);
    if translated { verdict } else { verdict.and(Err("it translated nothing".to_owned())) }
}

/// A processor with the self-test before it.
fn processor(host: HostFeatures, accelerator: MakeAccelerator) -> Result<Box<dyn Vcpu>, String> {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, RAM_BYTES)]));
    let image = image().map_err(|error| format!("the self-test can't be assembled: {error}"))?;
    load(&ram, &image).map_err(|error| format!("the self-test can't be loaded: {error}"))?;
    let entropy = HostEntropy::open().map_err(|error| error.to_string())?;
    let model = cpu_model(CpuModelName::Max, host).map_err(|error| error.to_string())?;
    let partition = InterpPartition::new(InterpConfig {
        ram,
        apics: Arc::new(ApicBus::new(1)),
        clock: Arc::new(HostClock::new()),
        entropy: Arc::new(entropy),
        barrier: Arc::new(Barrier::detect()),
        model,
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(|| None),
        accelerator,
    });
    let mut vcpu = partition.new_vcpu(0).map_err(|error| error.to_string())?;
    vcpu.write(StateSet::ALL, &start());
    Ok(vcpu)
}

fn judge(vcpu: &mut dyn Vcpu) -> Result<String, String> {
    match vcpu.run(Entry::Resume) {
        Err(fault) => Err(fault.to_string()),
        Ok(Exit::PortWrite { port: REPORT_PORT, value: WELL, .. }) => {
            Ok("works (self-test passed)".to_owned())
        }
        Ok(exit) => {
            let mut state = CpuState::reset(true);
            vcpu.read(StateSet::GENERAL, &mut state);
            Err(format!("the self-test ended by `{}` at {:#x}", exit.name(), state.rip))
        }
    }
}

/// The guest's code, and where its handlers begin.
struct Image {
    kernel: Vec<u8>,
    user: Vec<u8>,
    invalid_opcode: u64,
    page_fault: u64,
}

fn image() -> Result<Image, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut handlers = [a.create_label(), a.create_label(), a.create_label()];
    let [system_call, invalid_opcode, page_fault] = &mut handlers;
    let mut end = a.create_label();
    enter_program(&mut a, *system_call)?;
    a.set_label(system_call)?;
    on_system_call(&mut a, end)?;
    a.set_label(invalid_opcode)?;
    on_invalid_opcode(&mut a)?;
    a.set_label(page_fault)?;
    on_page_fault(&mut a)?;
    a.set_label(&mut end)?;
    verdict(&mut a)?;
    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let kernel = a.assemble_options(KERNEL + CODE, options)?;
    let invalid_opcode = kernel.label_ip(invalid_opcode)?;
    let page_fault = kernel.label_ip(page_fault)?;
    let user = program()?;
    Ok(Image { kernel: kernel.inner.code_buffer, user, invalid_opcode, page_fault })
}

/// The kernel's start: system-call registers, then to ring 3.
fn enter_program(a: &mut CodeAssembler, system_call: CodeLabel) -> Result<(), IcedError> {
    let star = (u64::from(KERNEL_SS) << 48) | (u64::from(KERNEL_CS) << 32);
    write_msr(a, msr::STAR, star)?;
    write_msr(a, msr::FMASK, flags::IF)?;
    write_msr(a, msr::KERNEL_GS_BASE, KERNEL + COUNTERS)?;
    a.lea(rax, ptr(system_call))?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 32)?;
    a.mov(ecx, msr::LSTAR)?;
    a.wrmsr()?;
    a.push(i32::from(USER_SS))?;
    a.mov(rax, USER_STACK_TOP_VA)?;
    a.push(rax)?;
    a.push(2)?;
    a.push(i32::from(USER_CS))?;
    a.mov(rax, USER_CODE_VA)?;
    a.push(rax)?;
    a.iretq()
}

fn write_msr(a: &mut CodeAssembler, index: u32, value: u64) -> Result<(), IcedError> {
    a.mov(ecx, index)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

fn on_system_call(a: &mut CodeAssembler, end: CodeLabel) -> Result<(), IcedError> {
    a.swapgs()?;
    a.inc(qword_ptr(0).gs())?;
    a.cmp(rax, CALL_END as i32)?;
    a.je(end)?;
    a.swapgs()?;
    a.sysretq()
}

/// Skips the two bytes of UD2.
fn on_invalid_opcode(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.swapgs()?;
    a.inc(qword_ptr(8).gs())?;
    a.swapgs()?;
    a.add(qword_ptr(rsp), 2)?;
    a.iretq()
}

/// Maps the late page if it is the one, for a write from ring 3 to a page not present.
fn on_page_fault(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut wrong = a.create_label();
    a.swapgs()?;
    a.push(rax)?;
    a.push(rbx)?;
    a.mov(rax, cr2)?;
    a.cmp(rax, LATE_PAGE_VA as i32)?;
    a.jne(wrong)?;
    a.cmp(qword_ptr(rsp + 16), (WRITE | USER) as i32)?;
    a.jne(wrong)?;
    a.inc(qword_ptr(16).gs())?;
    a.mov(rbx, KERNEL + PT_USER + 3 * 8)?;
    a.mov(qword_ptr(rbx), (LATE_PAGE | PRESENT | WRITE | USER) as i32)?;
    a.invlpg(ptr(rax))?;
    a.set_label(&mut wrong)?;
    a.pop(rbx)?;
    a.pop(rax)?;
    a.swapgs()?;
    a.add(rsp, 8)?;
    a.iretq()
}

/// Changes page tables, toggles global pages, looks for every trace and reports. Any report but
/// `WELL` is the number of traces found.
fn verdict(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut report = a.create_label();
    a.mov(rax, SECOND_PML4)?;
    a.mov(cr3, rax)?;
    a.mov(rax, cr4)?;
    a.btc(rax, 7)?;
    a.mov(cr4, rax)?;
    a.btc(rax, 7)?;
    a.mov(cr4, rax)?;
    a.xor(edi, edi)?;
    let traces = [
        (ALIAS + COUNTERS, 2),
        (ALIAS + COUNTERS + 8, 1),
        (ALIAS + COUNTERS + 16, 1),
        (ALIAS + LATE_PAGE, TRACE),
    ];
    for (address, expected) in traces {
        a.mov(rbx, address)?;
        a.cmp(qword_ptr(rbx), expected as i32)?;
        a.jne(report)?;
        a.inc(edi)?;
    }
    a.mov(edi, WELL)?;
    a.set_label(&mut report)?;
    a.mov(eax, edi)?;
    a.out(i32::from(REPORT_PORT as u8), al)?;
    a.hlt()
}

/// The program in ring 3.
fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.xor(eax, eax)?;
    a.syscall()?;
    a.ud2()?;
    a.mov(rbx, LATE_PAGE_VA)?;
    a.mov(qword_ptr(rbx), TRACE as i32)?;
    a.push(rbx)?;
    a.mov(eax, CALL_END as i32)?;
    a.syscall()?;
    a.ud2()?;
    a.assemble(USER_CODE_VA)
}

/// Code, page tables, descriptors.
fn load(ram: &Ram, image: &Image) -> Result<(), MemoryError> {
    ram.write(CODE, &image.kernel)?;
    ram.write(USER_CODE, &image.user)?;
    let user = PRESENT | WRITE | USER;
    let words = [
        (PML4, PDPT_USER | user),
        (PML4 + 256 * 8, PDPT_KERNEL | PRESENT | WRITE),
        (SECOND_PML4 + 256 * 8, PDPT_KERNEL | PRESENT | WRITE),
        (SECOND_PML4 + 257 * 8, PDPT_KERNEL | PRESENT | WRITE),
        (PDPT_USER, PD_USER | user),
        (PD_USER + 2 * 8, PT_USER | user),
        (PT_USER, USER_CODE | PRESENT | USER),
        (PT_USER + 8, USER_STACK | user),
        (PDPT_KERNEL, PD_KERNEL | PRESENT | WRITE),
        (PD_KERNEL, PRESENT | WRITE | LARGE | GLOBAL),
        (GDT + 0x08, 0x00AF_9B00_0000_FFFF),
        (GDT + 0x10, 0x00CF_9300_0000_FFFF),
        (GDT + 0x18, 0x00CF_F300_0000_FFFF),
        (GDT + 0x20, 0x00AF_FB00_0000_FFFF),
        (TSS + 4, KERNEL + KERNEL_STACK),
    ];
    for (address, word) in words {
        ram.write(address, &word.to_le_bytes())?;
    }
    for (vector, handler) in [(6, image.invalid_opcode), (14, image.page_fault)] {
        let low = (handler & 0xFFFF)
            | (u64::from(KERNEL_CS) << 16)
            | (0x8E00 << 32)
            | ((handler >> 16 & 0xFFFF) << 48);
        ram.write(IDT + vector * 16, &low.to_le_bytes())?;
        ram.write(IDT + vector * 16 + 8, &(handler >> 32).to_le_bytes())?;
    }
    Ok(())
}

/// The processor at the kernel's start: long mode, tables loaded.
fn start() -> CpuState {
    let mut state = CpuState::reset(true);
    state.rip = KERNEL + CODE;
    state.gpr[4] = KERNEL + KERNEL_STACK;
    state.cr0 = control::cr0::PG | control::cr0::PE | control::cr0::WP | control::cr0::ET;
    state.cr3 = PML4;
    state.cr4 = control::cr4::PAE | control::cr4::PGE;
    state.efer = control::efer::LME | control::efer::LMA | control::efer::SCE;
    let flat = |selector, access| SegmentRegister { selector, access, limit: u32::MAX, base: 0 };
    state.cs = flat(KERNEL_CS, 0xA09B);
    state.ss = flat(KERNEL_SS, 0xC093);
    state.tr =
        SegmentRegister { selector: TSS_SELECTOR, access: 0x8B, limit: 0x67, base: KERNEL + TSS };
    state.gdtr.base = KERNEL + GDT;
    state.gdtr.limit = 0x37;
    state.idtr.base = KERNEL + IDT;
    state.idtr.limit = 0xFFF;
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_does_what_an_operating_system_needs() {
        assert_eq!(self_test(HostFeatures::default()), Ok("works (self-test passed)".to_owned()));
    }
}
