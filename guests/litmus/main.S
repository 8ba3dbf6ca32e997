// The memory model: the litmus tests SB, MP, LB, 2+2W, R, S and IRIW, each plain, with MFENCE, and with a locked instruction
// between a processor's two accesses. SDM vol. 3A §8.2.2 and 8.2.3: stores are seen in their order by all, loads are not
// passed by anything behind them; but a load may pass an older store to another place. So of the outcomes that no
// interleaving gives ("weak" ones), those of SB and R are allowed where nothing stands between store and load, and all others
// are not. That of SB must be seen, or the test would not show anything, and the machine would be slower than it may be.
//
// The way is that of litmus7 (Alglave, Maranget, Sarkar, Sewell, "Litmus: running tests against hardware", 2011): rounds of
// many cells, a barrier between rounds, and a cell's two variables in different cache lines. Within a round each processor
// also waits for the next one at every cell, but not for long (it may be that the other isn't running), and then for a
// random time, so that the accesses meet in all ways.
//
// Two processors are needed, and four for IRIW; those that a test doesn't need sleep. Words of the command line: `runs=N`:
// so often for each test and fence, 100000 when not given; `look=N`: so often at most, 2000000, while an outcome that must
// be seen isn't (processors that the host runs in turns never show it), and with `look=0` it need not be seen; `only=NAME`:
// this test only.
#define LONG
#include "guest.inc"
#include "processors.inc"
GUEST "litmus"
.set CELLS, 16384
.set CELL, 128
.set PATIENCE, 24                 // looks at where the other processor is
.set DELAYS, 5                    // bits of the random time
#define CELL_X (%rsi)
#define CELL_Y 64(%rsi)

// What is expected of the weak outcome.
.set NEVER, 0
.set SEEN, 1
.set EITHER, 2

  .code64
guest_main:
  call read_words
  LAPIC_ON
  GATE 0x60, wake_up
  mov $pml4, %rax
  call start_all
  CASE "processors start"
  mov online, %eax
  cmp $1, %eax
  setae %al
  movzx %al, %eax
  CHECK(%rax, $1)
  cmpl $0, online
  je 9f
  call all_tests
9: FINISH

#include "words.inc"
#include "tests.inc"
#include "rounds.inc"
#include "tally.inc"
