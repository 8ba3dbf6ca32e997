#include "guest.inc"
GUEST "exceptions"
  .code32
guest_main:
  FAULT("de", DE, 0, "div %ecx", "xor %ecx,%ecx")
  FAULT3("de3", DE, 0, "div %ecx", "xor %ecx,%ecx")
  PASS("nop", "nop")
  PASS3("nop3", "nop")
  FAULT3("hlt3", GP, 0, "hlt")
  FAULT3("bad", GP, 5, "hlt")
  FINISH
