// Values that control registers must refuse in 64-bit mode (SDM vol. 3A §2.5, vol. 2B MOV to CR). A guest of its own, because
// a processor that takes one of them does not come back.
#define LONG
#include "guest.inc"
GUEST "reserved64"
  .code64
guest_main:
  FAULT("CR4: PAE cannot be cleared", GP, 0, "mov %rax,%cr4", "mov %cr4,%rax; and $~0x20,%eax")
  FAULT("CR4: LA57 cannot change", GP, 0, "mov %rax,%cr4", "mov %cr4,%rax; or $0x1000,%eax")
  FAULT("CR4: upper half", GP, 0, "mov %rax,%cr4", "mov %cr4,%rax; bts $40,%rax")
  FAULT("CR0: upper half", GP, 0, "mov %rax,%cr0", "mov %cr0,%rax; bts $40,%rax")
  FAULT("CR0: PE cleared with paging", GP, 0, "mov %rax,%cr0", "mov %cr0,%rax; and $~1,%eax")
  FAULT("CR0: NW without CD", GP, 0, "mov %rax,%cr0", "mov %cr0,%rax; bts $29,%rax")
  FAULT("CR0: PG cleared in 64-bit mode", GP, 0, "mov %rax,%cr0", "mov %cr0,%rax; btr $31,%rax")
  FAULT("MOV to CR3 with reserved high bits", GP, 0, "mov %rax,%cr3", "movabs $0x4000000000000000,%rax")
  FINISH
