// A triple fault: the machine resets or shuts down (SDM vol. 3A 6.15 #DF). Nothing may be printed after the summary.
#include "guest.inc"
GUEST "triple"
  .code32
guest_main:
  CASE "reached"
  call case_end
  SAY "guest triple: 1 passed, 0 failed\n"
  mov $0x100000, %ecx             // let the UART send its last bytes
  mov $0x3fd, %dx
1: in %dx, %al
  test $0x40, %al
  loopz 1b
  lidt nothing
  ud2
  SAY "FAIL triple: still running\n"
  jmp power_off
  .section .rodata
nothing: .word 0
  .long 0
