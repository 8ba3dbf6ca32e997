// Several processors: INIT and start-up IPIs, atomics, IPIs, TLB shootdown, cross-modifying code, memory ordering.
// SDM vol. 3A ch. 8 (8.1 to 8.4) and §10.4 to 10.6. Start it with two processors or more.
#define LONG
#include "guest.inc"
GUEST "smp"
.set LAPIC, 0xfee00000
.set ICR, LAPIC + 0x300
.set ROUNDS, 10000
.set SHOOT, 0x40000000            // address whose translation changes

.macro ICRWRITE lo, dest=%eax     // destination in the upper byte of a register
  mov $LAPIC + 0x310, %rdi
  mov \dest, (%rdi)
  mov $ICR, %rdi
  movl $\lo, (%rdi)
.endm
// All processors run `fn` (RDI = number of the processor, 0 for this one) and meet again.
.macro ALL fn
  mov $\fn, %rax
  call run_all
.endm
// Only the others do.
.macro OTHERS fn
  mov $\fn, %rax
  call run_others
  call wait_done
.endm

  .code64
guest_main:
  mov $LAPIC + 0xf0, %rdi
  movl $0x1ff, (%rdi)
  mov $LAPIC + 0x80, %rdi
  movl $0, (%rdi)
  GATE 0x60, ipi_count
  GATE 0x61, ipi_invlpg
  GATE 0x62, ipi_reply
  GATE 0x63, ipi_bsp
  GATE 2, nmi_entry
  mov $pml4, %rax
  call start_all
  CASE "processors start"
  mov online, %eax
  cmp $1, %eax
  setae %al
  movzx %al, %eax
  CHECK(%rax, $1)
  SAY "  processors: "
  mov online, %eax
  inc %eax
  call putdec
  SAY "\n"
  cmpl $0, online
  je 9f
  call start_state
  call atomics
  call ipis
  call shootdown
  call cross_modify
  call ordering
  call sleeping
  call restart
9: FINISH

#include "start.inc"
#include "share.inc"

  .section .bss
  .align 64
counter: .skip 64
counter2: .skip 64
spinlock: .skip 64
plain: .skip 64
edge: .skip 128
wide: .skip 64
x_: .skip 64
y_: .skip 64
r1: .skip 64
r2: .skip 64
bad: .skip 64
barrier_n: .skip 64
barrier_g: .skip 64
online: .skip 8
how_many: .skip 8
generation: .skip 8
done: .skip 8
work: .skip 8
only: .skip 8
apic_ids: .skip 32
ids_seen: .skip 32
ap_state: .skip 32
ipis_got: .skip 8
replies: .skip 8
nmis: .skip 8
woken: .skip 8
seen: .skip 64
fs_bad: .skip 8
  .align 4096
shoot_pd: .skip 4096
modified: .skip 64
ap_stacks: .skip 16*4096
