// Several processors: INIT and start-up IPIs, atomics, IPIs, TLB shootdown, cross-modifying code, memory ordering.
// SDM vol. 3A ch. 8 (8.1 to 8.4) and §10.4 to 10.6. Start it with two processors or more.
#define LONG
#include "guest.inc"
#include "processors.inc"
GUEST "smp"
.set ROUNDS, 10000
.set SHOOT, 0x40000000            // address whose translation changes

  .code64
guest_main:
  LAPIC_ON
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
only: .skip 8
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
