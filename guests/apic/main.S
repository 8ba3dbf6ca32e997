// Interrupt controllers: local APIC (SDM vol. 3A ch. 10), x2APIC, 8259A pair, 8254, I/O APIC (82093AA).
#include "guest.inc"
GUEST "apic"
.set LAPIC, 0xfee00000
.set ID, LAPIC + 0x20
.set VERSION, LAPIC + 0x30
.set TPR, LAPIC + 0x80
.set PPR, LAPIC + 0xa0
.set EOI, LAPIC + 0xb0
.set LDR, LAPIC + 0xd0
.set DFR, LAPIC + 0xe0
.set SVR, LAPIC + 0xf0
.set ISR, LAPIC + 0x100
.set IRR, LAPIC + 0x200
.set ESR, LAPIC + 0x280
.set ICR, LAPIC + 0x300
.set ICRHI, LAPIC + 0x310
.set LVTT, LAPIC + 0x320
.set LINT0, LAPIC + 0x350
.set LINT1, LAPIC + 0x360
.set LVTERR, LAPIC + 0x370
.set TICR, LAPIC + 0x380
.set TCCR, LAPIC + 0x390
.set TDCR, LAPIC + 0x3e0
.set IOAPIC, 0xfec00000

// Handlers note their vector in the log; they end with an EOI to the local APIC unless eoi_to says otherwise.
.macro ON vec
  GATE \vec, (handlers + 16*(\vec))
.endm
.macro CLEARLOG
  movl $0, log_count
  movl $0, log
  movl $0, log+4
.endm
// Interrupts on for a moment.
.macro WINDOW
  sti
  nop
  nop
  cli
.endm
// Waits for COUNT log entries with interrupts on, at most some 500 million TSC ticks; EAX = entries.
.macro WAITLOG count
  mov $\count, %eax
  call wait_log
.endm

  .code32
guest_main:
  .set v, 0x40
  .rept 64
  GATE v, (handlers + 16*v)
  .set v, v + 1
  .endr
  GATE 2, nmi_handler
  GATE 0xff, spurious
  movl $0x1ff, SVR
  movl $0, TPR
  movl $0x10000, LVTT
  movl $0x10000, LINT0
  movl $0x10000, LINT1
  movl $0x10000, LVTERR
  call registers
  call self_ipis
  call priorities
  call nmis
  call errors
  call timer
  call deadline
  call software_disable
  call pic
  call pit
  call ioapic
  call x2apic
  FINISH

#include "local.inc"
#include "legacy.inc"

  .text
  .align 16
handlers:
  .set v, 0
  .rept 256
  .align 16
  push %eax
  mov $v, %eax
  jmp handler
  .set v, v + 1
  .endr
handler:
  push %ebx
  mov log_count, %ebx
  and $15, %ebx
  mov %al, log(%ebx)
  incl log_count
  mov handler_hook, %ebx
  test %ebx, %ebx
  jz 1f
  call *%ebx
1: movl $0, EOI
  pop %ebx
  pop %eax
  iret
spurious:
  iret
nmi_handler:
  push %ecx
  push %eax
  incl nmi_count
  cmpl $1, nmi_count
  jne 1f
  movl $0x4400, ICR               // a second one, to this processor: waits for IRET
  mov $1000, %ecx
2: pause
  loop 2b
  mov nmi_count, %eax
  mov %eax, nmi_inside
1: pop %eax
  pop %ecx
  iret

wait_log:                         // EAX: how many
  push %edx
  push %ecx
  mov %eax, %ecx
  rdtsc
  shld $8, %eax, %edx
  mov %edx, %esi                  // in units of 2^24 ticks
  sti
1: pause
  cmp log_count, %ecx
  jbe 2f
  rdtsc
  shld $8, %eax, %edx
  sub %esi, %edx
  cmp $32, %edx
  jb 1b
2: cli
  mov log_count, %eax
  cmp %ecx, %eax
  jb 3f
  mov %ecx, %eax                  // more is as good
3: pop %ecx
  pop %edx
  ret

  .section .bss
  .align 16
log: .skip 16
log_count: .skip 4
handler_hook: .skip 4
hook_note: .skip 4
nmi_count: .skip 4
nmi_inside: .skip 4
