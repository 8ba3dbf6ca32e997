// Breakpoints on I/O ports, with CR4.DE (SDM vol. 3B §17.2.4, 17.3.1.3), and on the stack of an exception's delivery.
// Apart from the guest `debug`, because one emulator dies of them.
#define LONG
#include "guest.inc"
GUEST "breakpoints"
#include "breakpoints.inc"

  .code64
guest_main:
  mov %cr4, %rax
  or $8, %eax
  mov %rax, %cr4
  ARM 2, 0x80, 2, 0
  TRAPS "OUT to the watched port", 4, "out %al,$0x80"
  TRAPS "IN from it", 4, "in $0x80,%al"
  SILENT "another port", "out %al,$0x81"
  TRAPS "OUTSB", 4, "outsb", "mov $0x80,%edx; mov $cells,%esi"
  SILENT "memory at that address", "mov %al,cells"
  DISARM
  CASE "frame's pushes of an exception hit: #DB in the handler"
  GATE 0x53, push_target
  ARM 0, cells+0x38, 1, 2
  TRY
  mov $cells+0x60, %esp
  int $0x53                       // writes cells+0x38 .. 0x5f
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $push_target)
  DISARM
  CLEAR6
  FINISH
push_target:
  nop
  int $0x54

  .section .bss
  .skip 2048                      // a stack for some
cells: .skip 256
