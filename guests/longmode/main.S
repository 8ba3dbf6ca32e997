// Long mode: addresses, descriptor tables, system calls, transfers between 64-bit and compatibility mode, control
// registers and MSRs. SDM vol. 3A ch. 2, 4, 5, 6; APM vol. 2 ch. 4, 6, 8. Traps and breakpoints: the guest `debug`.
#define LONG
#include "guest.inc"
GUEST "longmode"
.set GATE64, FREE                 // call gate, 16 bytes
.set BADGATE, FREE + 0x10
.set CONF64, FREE + 0x20          // conforming 64-bit code, DPL 0
.set LDTSEL, FREE + 0x30
.set CODE16C, FREE + 0x40         // compatibility mode, 16-bit
.set LANDD, FREE + 0x48           // L and D both set
.set DATABASE, FREE + 0x50        // data with base 0x12345000
.set TSSBUSY, FREE + 0x60
.set NONCANON, 0x800000000000

.macro GETCR reg, cell=scratch
  mov %\reg, %rax
  mov %rax, \cell
.endm
.macro WRMSR64 msr, value
  mov $\msr, %ecx
  movabs $\value, %rax
  mov %rax, %rdx
  shr $32, %rdx
  wrmsr
.endm
.macro RDMSR64 msr                // into RAX
  mov $\msr, %ecx
  rdmsr
  shl $32, %rdx
  mov %eax, %eax
  or %rdx, %rax
.endm

  .code64
guest_main:
  mov %cr4, %rax
  mov %rax, cr4_start
  call canonical
  call segments64
  call stack_frames
  call interrupt_stacks
  call syscalls
  call sysenters
  call swapgs_bases
  call transfers
  call call_gates
  call control_regs
  call msrs
  call task_priority
  call cmpxchg16
  call iret_flags
  call umip
  call counters
  FINISH

#include "addresses.inc"
#include "calls.inc"
#include "registers.inc"

  .section .bss
  .align 64
scratch: .skip 128
cr4_start: .skip 8
  .align 64
ist_stack_low: .skip 4096
ist1_top: .skip 4096
ist2_top: .skip 64
fxarea: .skip 576
  .section .data
far64: .quad 0; .word 0
far32: .long 0; .word 0
