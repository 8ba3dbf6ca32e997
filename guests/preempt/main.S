// A kernel in small: two ring 3 tasks in two address spaces, preempted by the APIC timer, with SWAPGS, SYSCALL, demand paging,
// FXSAVE and FS bases of their own. Each mixes numbers in all kinds of registers; what comes out must be what the same
// steps give undisturbed. SDM vol. 3A §4.10, 5.8.7, 6.14, 10.5.4; vol. 2B SYSCALL, SWAPGS.
#define LONG
#include "guest.inc"
GUEST "preempt"
.set LAPIC, 0xfee00000
.set TIMER, 0x40
.set STEPS, 0x40000
.set CALL_EVERY, 0x1000           // steps between system calls and new pages
.set PRIVATE, 0x0000008000000000  // each task's own page: the same address, another frame
.set DEMAND, 0x0000008000200000   // pages that come when they are touched
.set POOL, 0x2000000              // frames for them

// A task's block.
.set T_RSP, 0                     // kernel stack pointer while it does not run
.set T_CR3, 8
.set T_RSP0, 16
.set T_FS, 24
.set T_DONE, 32
.set T_CALLS, 40
.set T_FAULTS, 48
.set T_FX, 64
.set T_SIZE, 1024

// One step: R8 random, R9 to R15, RBX, XMM0, XMM9 and the x87 stack follow. RBP counts down.
.macro STEP_
  imul %r14, %r8
  add %r15, %r8
  mov %r8, %rax
  ror $17, %rax
  xor %rax, %r9
  adc %r9, %r10
  mul %r9
  add %rdx, %r11
  sbb %rax, %r12
  bswap %rax
  xor %rax, %r13
  lea (%rbx,%r11,2), %rbx
  movq %r8, %xmm1
  paddq %xmm1, %xmm0
  pxor %xmm0, %xmm9
  fadd %st(1), %st
.endm
.macro START_                     // from the seed in RDI
  mov %rdi, %r8
  mov %rdi, %r9
  mov %rdi, %r10
  mov %rdi, %r11
  mov %rdi, %r12
  mov %rdi, %r13
  mov %rdi, %rbx
  movabs $6364136223846793005, %r14
  movabs $1442695040888963407, %r15
  pxor %xmm0, %xmm0
  pxor %xmm9, %xmm9
  fninit
  fld1
  fldz
  mov $STEPS, %ebp
.endm
.macro RESULT_                    // to RSI
  mov %r8, (%rsi)
  mov %r9, 8(%rsi)
  mov %r10, 16(%rsi)
  mov %r11, 24(%rsi)
  mov %r12, 32(%rsi)
  mov %r13, 40(%rsi)
  mov %rbx, 48(%rsi)
  movups %xmm0, 56(%rsi)
  movups %xmm9, 72(%rsi)
  fistpll 88(%rsi)
.endm

  .code64
guest_main:
  xor %eax, %eax                  // null, so that IRETQ to ring 3 finds nothing to take away
  mov %eax, %fs
  mov %eax, %gs
  mov $LAPIC + 0xf0, %rdi
  movl $0x1ff, (%rdi)
  GATE TIMER, timer_entry
  GATE 0xff, spurious_entry
  GATE PF, fault_entry
  mov $0xc0000080, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $0xc0000081, %ecx
  xor %eax, %eax
  mov $0x001b0008, %edx
  wrmsr
  mov $0xc0000082, %ecx
  mov $syscall_entry, %eax
  xor %edx, %edx
  wrmsr
  mov $0xc0000084, %ecx
  mov $0x40700, %eax              // interrupts off in the kernel
  xor %edx, %edx
  wrmsr

  mov $0x11111111, %edi
  mov $expected_a, %esi
  call reference
  mov $0x22222222, %edi
  mov $expected_b, %esi
  call reference

  mov $task_a, %ebx
  mov $space_a, %esi
  mov $0x11111111, %edi
  mov $kstack_a, %r8d
  movq $0xaaaa000, T_FS(%rbx)
  call make_task
  mov $task_b, %ebx
  mov $space_b, %esi
  mov $0x22222222, %edi
  mov $kstack_b, %r8d
  movq $0xbbbb000, T_FS(%rbx)
  call make_task

  mov %rsp, main_rsp
  mov $LAPIC + 0x3e0, %rdi
  movl $0xb, (%rdi)
  mov $LAPIC + 0x320, %rdi
  movl $0x20000 + TIMER, (%rdi)
  mov $LAPIC + 0x380, %rdi
  movl $100000, (%rdi)
  mov $cpu_block, %eax            // the kernel's GS base waits in the other MSR; the user's is a mark
  xor %edx, %edx
  mov $0xc0000102, %ecx
  wrmsr
  mov $0x5550000, %eax
  mov $0xc0000101, %ecx
  wrmsr
  swapgs                          // we are in the kernel
  mov $task_a, %ebx
  jmp switch_to

both_done:
  swapgs
  mov main_rsp, %rsp
  mov $LAPIC + 0x320, %rdi
  movl $0x10000, (%rdi)
  mov $pml4, %eax
  mov %rax, %cr3
  CASE "the first task's numbers"
  mov $space_a + 0x3100, %esi
  mov $expected_a, %edi
  call compare
  CASE "the second task's numbers"
  mov $space_b + 0x3100, %esi
  mov $expected_b, %edi
  call compare
  CASE "they were preempted"
  mov switches, %rax
  cmp $4, %rax
  setae %al
  movzx %al, %eax
  CHECK(%rax, $1)
  CASE "every system call was counted"
  CHECK(task_a + T_CALLS, $(STEPS / CALL_EVERY))
  CHECK(task_b + T_CALLS, $(STEPS / CALL_EVERY))
  CASE "every new page came by one fault"
  CHECK(task_a + T_FAULTS, $(STEPS / CALL_EVERY))
  CHECK(task_b + T_FAULTS, $(STEPS / CALL_EVERY))
  CASE "what was written to the new pages is there"
  CHECK(page_sum_a, $(0x3333 * (STEPS / CALL_EVERY)))
  CHECK(page_sum_b, $(0x3333 * (STEPS / CALL_EVERY)))
  CASE "FS and GS bases stayed each task's own"
  CHECK(bad_bases, $0)
  CASE "interrupts came from ring 3 only, with its frame"
  CHECK(bad_frames, $0)
  FINISH

compare:                          // 12 words at RSI and RDI
  mov $12, %ecx
1: mov (%rsi), %rax
  CHECK((%rdi), %rax)
  add $8, %rsi
  add $8, %rdi
  dec %ecx
  jnz 1b
  ret
reference:
  push %rbx
  push %rbp
  START_
1: STEP_
  dec %rbp
  jnz 1b
  RESULT_
  pop %rbp
  pop %rbx
  ret

// RBX block, RSI four pages (PML4, PDPT, directory, private page, then the tables follow), RDI seed, R8 top of its stack.
make_task:
  push %rdi
  mov %rsi, T_CR3(%rbx)
  mov %r8, T_RSP0(%rbx)
  mov pml4, %rax
  mov %rax, (%rsi)                // the guest itself
  lea 0x1007(%rsi), %rax
  mov %rax, 8(%rsi)               // PRIVATE's 512 GiB
  lea 0x2007(%rsi), %rax
  mov %rax, 0x1000(%rsi)
  lea 0x4007(%rsi), %rax
  mov %rax, 0x2000(%rsi)          // first 2 MiB: table at 4000H
  lea 0x3007(%rsi), %rax
  mov %rax, 0x4000(%rsi)          // its first page: the private one
  lea 0x5007(%rsi), %rax
  mov %rax, 0x2008(%rsi)          // DEMAND: table at 5000H
  pop %rdi
  lea -160(%r8), %rax             // 15 registers, and the frame
  mov %rax, T_RSP(%rbx)
  mov %rdi, 8*8(%rax)             // RDI's place
  movq $user_task, 15*8(%rax)
  movq $CODE3, 16*8(%rax)
  movq $0x202, 17*8(%rax)
  movabs $PRIVATE + 0xff0, %rcx
  mov %rcx, 18*8(%rax)
  movq $DATA3, 19*8(%rax)
  fninit
  movl $0x1f80, scratch
  ldmxcsr scratch
  fxsave T_FX(%rbx)
  ret

.macro PUSH_ALL
  .irp r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
  push %\r
  .endr
.endm
.macro POP_ALL
  .irp r, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
  pop %\r
  .endr
.endm
timer_entry:
  swapgs
  PUSH_ALL
  mov $LAPIC + 0xb0, %edi
  mov %edi, %edi
  movl $0, (%rdi)
  cmpq $CODE3, 16*8(%rsp)
  jne 1f
  cmpq $DATA3, 19*8(%rsp)
  je 2f
1: incq bad_frames
2: incq switches
  mov %gs:0, %rbx
  mov $0xc0000100, %ecx
  rdmsr
  cmp T_FS(%rbx), %eax
  jne 3f
  mov $0xc0000102, %ecx           // the user's GS base, while we are here
  rdmsr
  cmp $0x5550000, %eax
  je 4f
3: incq bad_bases
4:
  mov %rsp, T_RSP(%rbx)
  fxsave T_FX(%rbx)
  jmp next_task
next_task:                        // RBX: the one that ran
  mov $task_a, %eax
  add $task_b, %eax
  sub %ebx, %eax
  cmpq $0, T_DONE(%rax)
  jne 1f
  mov %rax, %rbx
1: cmpq $0, T_DONE(%rbx)
  jne both_done
switch_to:
  mov %rbx, %gs:0
  mov T_CR3(%rbx), %rax
  mov %rax, %cr3
  mov T_RSP0(%rbx), %rax
  mov %rax, tss+4
  mov T_FS(%rbx), %eax
  xor %edx, %edx
  mov $0xc0000100, %ecx
  wrmsr
  fxrstor T_FX(%rbx)
  mov T_RSP(%rbx), %rsp
  POP_ALL
  swapgs
  iretq
spurious_entry:
  iretq

fault_entry:                      // maps a fresh frame at CR2
  swapgs
  PUSH_ALL
  mov %cr2, %rax
  movabs $DEMAND, %rcx
  sub %rcx, %rax
  cmp $0x200000, %rax
  jae 3f
  cmpq $6, 15*8(%rsp)             // a write by ring 3 to what is not there
  jne 3f
  mov %gs:0, %rbx
  incq T_FAULTS(%rbx)
  shr $12, %rax
  mov T_CR3(%rbx), %rcx
  mov pool_next, %edx
  addl $4096, pool_next
  mov %rdx, %rdi
  or $7, %edx
  mov %rdx, 0x5000(%rcx,%rax,8)
  mov $512, %ecx
  xor %eax, %eax
  rep stosq
  POP_ALL
  swapgs
  add $8, %rsp
  iretq
3: POP_ALL
  swapgs
  push $PF
  jmp exc_common

syscall_entry:                    // EAX 1: count; 2: the task is done; RSI: sum of its pages
  swapgs
  mov %rsp, %gs:8
  mov %gs:0, %rdx
  mov T_RSP0(%rdx), %rsp
  push %gs:8
  push %rcx
  push %r11
  cmp $2, %eax
  je 1f
  incq T_CALLS(%rdx)
  pop %r11
  pop %rcx
  pop %rsp
  swapgs
  sysretq
1: movq $1, T_DONE(%rdx)
  mov %rdx, %rbx
  cmp $task_a, %ebx
  jne 2f
  mov %rsi, page_sum_a
  jmp next_task
2: mov %rsi, page_sum_b
  jmp next_task

user_task:                        // ring 3; RDI seed
  START_
1: STEP_
  test $CALL_EVERY - 1, %ebp
  jnz 2f
  push %r11
  mov $1, %eax
  syscall                         // takes RCX, R11; the kernel here uses RDX
  pop %r11
  mov %ebp, %eax
  dec %eax
  and $~(CALL_EVERY - 1), %eax    // one page for each 1000H
  movabs $DEMAND, %rdx
  add %rdx, %rax
  movq $0x3333, (%rax)            // comes by a fault
2: dec %rbp
  jnz 1b
  movabs $PRIVATE + 0x100, %rsi
  RESULT_
  xor %esi, %esi
  movabs $DEMAND, %rdx
  mov $STEPS / CALL_EVERY, %ecx
3: add (%rdx), %rsi
  add $0x1000, %rdx
  loop 3b
  mov $2, %eax
  syscall

  .section .data
pool_next: .long POOL
  .section .bss
  .align 4096
space_a: .skip 6*4096
space_b: .skip 6*4096
  .skip 4096
kstack_a: .skip 4096
kstack_b: .skip 64
  .align 64
task_a: .skip T_SIZE
task_b: .skip T_SIZE
cpu_block: .skip 64
expected_a: .skip 128
expected_b: .skip 128
main_rsp: .skip 8
switches: .skip 8
page_sum_a: .skip 8
page_sum_b: .skip 8
bad_bases: .skip 8
bad_frames: .skip 8
scratch: .skip 8
