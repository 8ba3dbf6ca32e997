// PAE paging in 32-bit mode: PDPTEs, NX, 2 MiB pages, reserved bits. SDM vol. 3A §4.4, 4.6, 4.7.
#include "guest.inc"
GUEST "pagingpae"
.set VA, 0x10000000               // table under test; directory entry 128 of the first directory
.set FRAME, 0x2000000
.set PDE_, pd0 + 8*(VA >> 21)
.set BIG, 0x20000000              // 2 MiB page under test
.set PDEBIG, pd0 + 8*(BIG >> 21)
.set HIGH, 0x40000000             // the second PDPTE's GiB
.set NX, 0x80000000               // in the upper half

.macro MAP page, lo, hi=0, frame=-1
  .if \frame == -1
  movl $(FRAME + (\page)*4096 + \lo), pt + 8*(\page)
  .else
  movl $(FRAME + (\frame)*4096 + \lo), pt + 8*(\page)
  .endif
  movl $\hi, pt + 8*(\page) + 4
  invlpg VA + (\page)*4096
.endm
.macro FLUSH
  mov %cr3, %eax
  mov %eax, %cr3
.endm
.macro PFm line, name, err, cr2, insn, pre
  FAULTm \line, "\name", PF, \err, "\insn", "\pre"
  CHECKm \line, exc_cr2, $(\cr2)
.endm
.macro PF3m line, name, err, cr2, insn, pre
  FAULT3m \line, "\name", PF, \err, "\insn", "\pre"
  CHECKm \line, exc_cr2, $(\cr2)
.endm
#define PAGEFAULT(...) PFm __LINE__, __VA_ARGS__
#define PAGEFAULT3(...) PF3m __LINE__, __VA_ARGS__
// Jumps into the page: fault expected at the target, with this error code. FETCHOK: a RET is there and runs.
.macro FETCH name, ring, err, at
  CASE "\name"
  TRY
  .if \ring == 3
  TO_RING3
  .endif
  mov $(\at), %eax
  jmp *%eax
  ENDTRY
  CHECKm 101, exc_vec, $PF
  CHECKm 102, exc_err, $(\err)
  CHECKm 103, exc_cr2, $(\at)
  CHECKm 104, exc_eip, $(\at)
.endm
.macro FETCHOK name, at
  CASE "\name"
  TRY
  mov $(\at), %eax
  call *%eax
  ENDTRY
  CHECKm 105, exc_vec, $NONE
.endm
.macro EFER_NXE on
  mov $0xc0000080, %ecx
  rdmsr
  and $~0x800, %eax
  .if \on
  or $0x800, %eax
  .endif
  wrmsr
.endm

  .code32
guest_main:
  UNLESS cpuid_1d, 6, 9f
  mov $pd0, %edi
  mov $0x87, %eax                 // identity, 2 MiB pages, 64 MiB, user
  mov $32, %ecx
1: mov %eax, (%edi)
  add $0x200000, %eax
  add $8, %edi
  loop 1b
  movl $pt + 7, PDE_
  movl $pd0 + 1, pdpt
  movl $pd1 + 1, pdpt + 8
  mov %cr4, %eax
  or $0x20, %eax
  mov %eax, %cr4
  mov $pdpt, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  jmp 1f
1: call permissions
  call big_pages
  call reserved
  call pdptes
  UNLESS cpuid_xd, 20, 8f
  call no_execute
  FINISH
8: SKIP "NX: no such feature"
  FINISH
9: SKIP "PAE: no such feature"
  FINISH

.macro ONE_ACCESS ring, pde, pte, write
  .set ok_, 1
  .if \ring == 3
    .if !((\pde) & (\pte) & 4)
      .set ok_, 0
    .endif
    .if (\write) && !((\pde) & (\pte) & 2)
      .set ok_, 0
    .endif
    .set err_, 5 + 2*\write
  .else
    .if (\write) && !((\pde) & (\pte) & 2)
      .set ok_, 0
    .endif
    .set err_, 1 + 2*\write
  .endif
  CASE "ring \ring WP 1 PDE \pde PTE \pte write \write"
  movl $pt + \pde, PDE_
  MAP 0, \pte
  FLUSH
  TRY
  .if \ring == 3
  TO_RING3
  .endif
  .if \write
98: movb $1, VA + 0x123
  .else
98: movb VA + 0x123, %al
  .endif
  .if \ring == 3
  int $EXIT
  .endif
  ENDTRY
  .if ok_
    .if \ring == 3
    CHECK(exc_vec, $EXIT)
    .else
    CHECK(exc_vec, $NONE)
    .endif
    mov pt, %eax
    and $0x60, %eax
    CHECK(%eax, $(0x20 + 0x40*\write))
  .else
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $err_)
  CHECK(exc_cr2, $(VA + 0x123))
  CHECK(exc_eip, $98b)
  .endif
.endm
permissions:
  mov %cr0, %eax
  or $0x10000, %eax
  mov %eax, %cr0
  .irp pde, 1, 3, 5, 7
  .irp pte, 1, 3, 5, 7
  .irp write, 0, 1
  ONE_ACCESS 3, \pde, \pte, \write
  ONE_ACCESS 0, \pde, \pte, \write
  .endr
  .endr
  .endr
  mov %cr0, %eax
  and $~0x10000, %eax
  mov %eax, %cr0
  movl $pt + 7, PDE_
  MAP 1, 0
  FLUSH
  PAGEFAULT("not present: read", 0, VA + 0x1004, "mov VA+0x1004,%eax")
  PAGEFAULT3("not present: ring 3 write", 6, VA + 0x1004, "mov %eax,VA+0x1004")
  PAGEFAULT("no PDE", 2, HIGH + 0x1004, "mov %eax,HIGH+0x1004")
  PAGEFAULT("no PDPTE", 0, 0x80001004, "mov 0x80001004,%eax")
  PAGEFAULT3("no PDPTE in ring 3", 6, 0xc0001004, "mov %eax,0xc0001004")
  CASE "INVLPG"
  MAP 2, 7
  movl $1, FRAME + 0x2000
  movl $2, FRAME + 0x3000
  mov VA + 0x2000, %eax
  MAP 2, 7, 0, 3
  mov VA + 0x2000, %ebx
  CHECK(%ebx, $2)
  ret

big_pages:
  CASE "2 MiB page: translation, A and D; CR4.PSE does not matter"
  movl $FRAME + 0x87, PDEBIG
  movl $0x2468, FRAME + 0x123458
  mov BIG + 0x123458, %ebx
  CHECK(%ebx, $0x2468)
  mov PDEBIG, %eax
  and $0x60, %eax
  CHECK(%eax, $0x20)
  movl $1, BIG
  mov PDEBIG, %eax
  and $0x60, %eax
  CHECK(%eax, $0x60)
  movl $FRAME + 0x85, PDEBIG
  invlpg BIG
  PAGEFAULT3("2 MiB page: read only", 7, BIG + 0x1ffffc, "mov %eax,BIG+0x1ffffc")
  movl $FRAME + 0x83, PDEBIG
  invlpg BIG
  PAGEFAULT3("2 MiB page: supervisor", 5, BIG + 4, "mov BIG+4,%eax")
  PAGEFAULT("access from it into nothing", 0, BIG + 0x200000, "mov BIG+0x1ffffe,%eax")
  ret

reserved:
  movl $FRAME + 0x2087, PDEBIG
  invlpg BIG
  PAGEFAULT("2 MiB page: bit 13 is reserved", 9, BIG + 4, "mov BIG+4,%eax")
  PAGEFAULT3("2 MiB page: reserved bit, ring 3 write", 0xf, BIG + 4, "mov %eax,BIG+4")
  movl $FRAME + 0x87, PDEBIG
  movl $0x40000000, PDEBIG + 4
  invlpg BIG
  PAGEFAULT("PDE: bit 62 is reserved", 9, BIG + 4, "mov BIG+4,%eax")
  movl $0, PDEBIG + 4
  MAP 3, 7, 0x40000000
  PAGEFAULT("PTE: bit 62 is reserved", 9, VA + 0x3004, "mov VA+0x3004,%eax")
  MAP 3, 7, 0x00100000
  PAGEFAULT("PTE: bit 52 is reserved", 9, VA + 0x3004, "mov VA+0x3004,%eax")
  PAGEFAULT3("PTE: reserved bit, ring 3 write", 0xf, VA + 0x3004, "mov %eax,VA+0x3004")
  MAP 3, 6, 0x40000000
  PAGEFAULT("PTE: reserved bit of an entry that is not present", 2, VA + 0x3004, "mov %eax,VA+0x3004")
  MAP 3, 7, 0x80000000
  PAGEFAULT("PTE: bit 63 is reserved without NXE", 9, VA + 0x3004, "mov VA+0x3004,%eax")
  FETCH "fetch from nowhere without NXE", 0, 0, (VA + 0x1008)
  ret

.macro PDPTE_GP name, bits, hi=0
  CASE "\name"
  movl $pd1 + 1 + \bits, pdpt + 8
  movl $\hi, pdpt + 12
  TRY
  mov %cr3, %eax
98: mov %eax, %cr3
  ENDTRY
  movl $pd1 + 1, pdpt + 8
  movl $0, pdpt + 12
  CHECKm 106, exc_vec, $GP
  CHECKm 107, exc_err, $0
  CHECKm 108, exc_eip, $98b
.endm
pdptes:                           // §4.4.1
  PDPTE_GP "PDPTE: R/W is reserved", 2
  PDPTE_GP "PDPTE: U/S is reserved", 4
  PDPTE_GP "PDPTE: bit 5 is reserved", 0x20
  PDPTE_GP "PDPTE: bit 8 is reserved", 0x100
  PDPTE_GP "PDPTE: bit 52 is reserved", 0, 0x00100000
  PDPTE_GP "PDPTE: bit 63 is reserved", 0, 0x80000000
  CASE "PDPTE: other bits of one that is not present do not matter"
  movl $0x1fe, pdpt + 16
  TRY
  mov %cr3, %eax
  mov %eax, %cr3
  ENDTRY
  movl $0, pdpt + 16
  CHECK(exc_vec, $NONE)
  CASE "PDPTE: bits 3, 4 and 9 to 11 are free"
  movl $pd1 + 0xe19, pdpt + 8
  TRY
  mov %cr3, %eax
  mov %eax, %cr3
  ENDTRY
  CHECK(exc_vec, $NONE)
  movl $pd1 + 1, pdpt + 8
  CASE "PDPTEs are loaded with CR3, not read at each walk"
  movl $FRAME + 0x87, pd1
  FLUSH
  movl $0x4711, FRAME
  movl $0, pdpt + 8
  invlpg HIGH
  TRY
  mov HIGH, %ebx
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%ebx, $0x4711)
  FLUSH
  PAGEFAULT("and gone after MOV to CR3", 0, HIGH, "mov HIGH,%ebx")
  movl $pd1 + 1, pdpt + 8
  UNLESS cpuid_1d, 13, 1f
  CASE "MOV to CR4 that changes PGE loads them too"
  mov %cr4, %eax
  xor $0x80, %eax
  mov %eax, %cr4
  TRY
  mov HIGH, %ebx
  ENDTRY
  CHECK(exc_vec, $NONE)
  movl $pd1 + 3, pdpt + 8
  FAULT("and checks them", GP, 0, "mov %eax,%cr4", "mov %cr4,%eax; xor $0x80,%eax")
  movl $pd1 + 1, pdpt + 8
1: CASE "table at any 32 bytes"
  mov $pdpt, %esi
  mov $pdpt_odd, %edi
  mov $8, %ecx
  rep movsl
  mov $pdpt_odd + 0x18, %eax      // PWT and PCD are no address bits
  TRY
  mov $pdpt_odd + 0x18, %eax
  mov %eax, %cr3
  mov %cr3, %ebx
  mov $pdpt, %eax
  mov %eax, %cr3
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%ebx, $(pdpt_odd + 0x18))
  ret

no_execute:
  movl $0xc3c3c3c3, FRAME + 0x4000
  EFER_NXE 1
  FETCH "fetch from nowhere with NXE", 0, 0x10, (VA + 0x1008)
  MAP 4, 7
  FETCHOK "page without NX runs", (VA + 0x4000)
  MAP 4, 7, NX
  FETCH "page with NX", 0, 0x11, (VA + 0x4000)
  FETCH "page with NX in ring 3", 3, 0x15, (VA + 0x4000)
  PASS("page with NX: reads and writes are good", "mov VA+0x4000,%eax; mov %eax,VA+0x4000")
  PAGEFAULT3("page with NX: a write fault has no bit 4", 6, VA + 0x1004, "mov %eax,VA+0x1004")
  MAP 4, 7
  movl $NX, PDE_ + 4
  FLUSH
  FETCH "NX in the directory", 0, 0x11, (VA + 0x4000)
  movl $0, PDE_ + 4
  movl $FRAME + 0x87, PDEBIG
  movl $NX, PDEBIG + 4
  FLUSH
  FETCH "NX of a 2 MiB page", 3, 0x15, (BIG + 0x4000)
  movl $0, PDEBIG + 4
  FLUSH
  FETCHOK "and without", (BIG + 0x4000)
  MAP 4, 3
  FETCH "supervisor page in ring 3 with NXE", 3, 0x15, (VA + 0x4000)
  CASE "instruction that goes on in an NX page"
  MAP 4, 7
  MAP 5, 7, NX
  movb $0xb8, FRAME + 0x4ffe
  TRY
  mov $VA + 0x4ffe, %eax
  jmp *%eax
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $0x11)
  CHECK(exc_cr2, $(VA + 0x5000))
  CHECK(exc_eip, $(VA + 0x4ffe))
  CASE "NXE cleared: the bit is reserved again"
  EFER_NXE 0
  FLUSH
  TRY
98: mov VA + 0x5000, %eax
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $9)
  ret

  .section .bss
  .align 4096
pd0: .skip 4096
pd1: .skip 4096
pt: .skip 4096
pdpt: .skip 32
  .skip 32
pdpt_odd: .skip 32
