//! Loops that stay in the block cache.

use std::time::Instant;

use anyhow::{Result, ensure};
use iced_x86::code_asm::*;
use kasane_cpu::{Entry, Exit};

use super::bare_cpu::{CODE, DATA, with_code};

/// One loop.
pub(super) struct Bench {
    pub(super) name: &'static str,
    pub(super) mix: &'static str,
    code: Vec<u8>,
}

/// All loops. Each runs for ever.
pub(super) fn all() -> Result<Vec<Bench>> {
    Ok(vec![
        Bench {
            name: "load-add-cmp-jcc",
            mix: "per round: 2 loads, 2 adds (one from memory), 1 compare, 1 branch",
            code: load_add_compare()?,
        },
        Bench {
            name: "call-ret",
            mix: "per round: call, push, pop, ret, dec, branch",
            code: call_ret()?,
        },
        Bench {
            name: "store-shift",
            mix: "per round: store, shift, xor, read-modify-write, lea, branch",
            code: store_shift()?,
        },
    ])
}

fn load_add_compare() -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut top)?;
    a.mov(rax, qword_ptr(rsi + rcx * 8))?;
    a.mov(edx, dword_ptr(rsi + 16))?;
    a.add(rbx, rax)?;
    a.add(rdi, qword_ptr(rsi + 8))?;
    a.cmp(rdi, 1)?;
    a.jae(top)?;
    a.jmp(top)?;
    Ok(a.assemble(CODE)?)
}

fn call_ret() -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    let mut top = a.create_label();
    let mut function = a.create_label();
    a.set_label(&mut top)?;
    a.call(function)?;
    a.dec(rbx)?;
    a.jmp(top)?;
    a.set_label(&mut function)?;
    a.push(rbp)?;
    a.pop(rbp)?;
    a.ret()?;
    Ok(a.assemble(CODE)?)
}

fn store_shift() -> Result<Vec<u8>> {
    let mut a = CodeAssembler::new(64)?;
    let mut top = a.create_label();
    a.mov(rsi, DATA)?;
    a.set_label(&mut top)?;
    a.mov(qword_ptr(rsi + 24), rax)?;
    a.shl(rax, 3)?;
    a.xor(rax, rcx)?;
    a.add(qword_ptr(rsi + 32), rax)?;
    a.lea(rcx, qword_ptr(rcx + rax * 2 + 5))?;
    a.jmp(top)?;
    Ok(a.assemble(CODE)?)
}

/// Instructions per second over one run.
pub(super) fn rate(bench: &Bench, instructions: u64) -> Result<f64> {
    let mut vcpu = with_code(&bench.code)?;
    // Stopped by a kick and not by a budget: a budget makes the engine count single instructions.
    let kicker = vcpu.kicker();
    let start = Instant::now();
    loop {
        let before = vcpu.instructions();
        let waker = kicker.clone();
        let timer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            waker.kick();
        });
        let exit = vcpu.run(Entry::Resume)?;
        ensure!(timer.join().is_ok(), "the timer thread failed");
        ensure!(exit == Exit::Kicked, "{}: unexpected exit {exit:?}", bench.name);
        ensure!(vcpu.instructions() > before, "{}: nothing ran", bench.name);
        if vcpu.instructions() >= instructions {
            break;
        }
    }
    Ok(vcpu.instructions() as f64 / start.elapsed().as_secs_f64())
}
