// Values that control registers must refuse in 32-bit protected mode (SDM vol. 3A §2.5, vol. 2B MOV to CR). A guest of its
// own, because a processor that takes one of them does not come back.
#include "guest.inc"
GUEST "reserved32"
  .code32
guest_main:
  FAULT("CR0: NW without CD", GP, 0, "mov %eax,%cr0", "mov %cr0,%eax; or $0x20000000,%eax")
  FAULT("CR4: PCIDE outside long mode", GP, 0, "mov %eax,%cr4", "mov $0x20600,%eax")
  FAULT("CR4: reserved bit", GP, 0, "mov %eax,%cr4", "mov $0x80000600,%eax")
  FAULT("CR0: PG without PE", GP, 0, "mov %eax,%cr0", "mov $0x80000030,%eax")
  FINISH
