// 32-bit paging: permissions, error codes, accessed and dirty bits, big pages, TLB. SDM vol. 3A ch. 4.
#include "guest.inc"
GUEST "paging32"
.set VA, 0x10000000               // the page table under test maps from here
.set FRAME, 0x2000000             // frames for it: 32 MiB and up
.set PDE_, pd + 4*(VA >> 22)
.set BIG, 0x20000000              // a big page under test
.set PDEBIG, pd + 4*(BIG >> 22)
.set GDTALIAS, VA + 0x8000

.macro MAP page, flags, frame=-1  // page number in the table under test
  .if \frame == -1
  movl $(FRAME + (\page)*4096 + \flags), pt + 4*(\page)
  .else
  movl $(FRAME + (\frame)*4096 + \flags), pt + 4*(\page)
  .endif
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
.macro CR4BITS set, clear
  mov %cr4, %eax
  or $\set, %eax
  and $~(\clear), %eax
  mov %eax, %cr4
.endm
.macro WP_ON
  mov %cr0, %eax
  or $0x10000, %eax
  mov %eax, %cr0
.endm
.macro WP_OFF
  mov %cr0, %eax
  and $~0x10000, %eax
  mov %eax, %cr0
.endm

  .code32
guest_main:
  mov $pd, %edi
  mov $0x87, %eax                 // identity, 4 MiB pages, 64 MiB, user
  mov $16, %ecx
1: stosl
  add $0x400000, %eax
  loop 1b
  movl $pt + 7, PDE_
  CR4BITS 0x10, 0
  mov $pd, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  jmp 1f
1:
  call permissions
  call not_present
  call accessed_dirty
  call big_pages
  call global_pages
  call crossing
  call atomics
  call strings
  call implicit
  call supervisor_only
  call paging_off
  FINISH

// Every combination of U/S and R/W in both levels, read and write, ring 3, and ring 0 with and without WP (§4.6).
.macro ONE_ACCESS ring, wp, pde, pte, write
  .set ok_, 1
  .if \ring == 3
    .if !((\pde) & (\pte) & 4)
      .set ok_, 0
    .endif
    .if (\write) && !((\pde) & (\pte) & 2)
      .set ok_, 0
    .endif
  .else
    .if (\write) && (\wp) && !((\pde) & (\pte) & 2)
      .set ok_, 0
    .endif
  .endif
  CASE "ring \ring WP \wp PDE \pde PTE \pte write \write"
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
  .else
  CHECK(exc_vec, $PF)
  .set err_, 1 + 2*\write
  .if \ring == 3
  .set err_, err_ + 4
  .endif
  CHECK(exc_err, $err_)
  CHECK(exc_cr2, $(VA + 0x123))
  CHECK(exc_eip, $98b)
  .endif
.endm
permissions:
  .irp pde, 1, 3, 5, 7
  .irp pte, 1, 3, 5, 7
  .irp write, 0, 1
  ONE_ACCESS 3, 0, \pde, \pte, \write
  ONE_ACCESS 0, 0, \pde, \pte, \write
  .endr
  .endr
  .endr
  WP_ON
  .irp pde, 1, 3, 5, 7
  .irp pte, 1, 3, 5, 7
  ONE_ACCESS 0, 1, \pde, \pte, 1
  .endr
  .endr
  movl $pt + 7, PDE_
  FLUSH
  MAP 0, 5
  CASE "clearing WP takes effect at once, setting it too"
  TRY
  WP_OFF
  movb $1, VA
  WP_ON
98: movb $2, VA
  ENDTRY
  CHECK(exc_eip, $98b)
  CHECK(exc_err, $3)
  WP_OFF
  ret

not_present:
  movl $0, pt + 4
  movl $0, PDEBIG
  FLUSH
  PAGEFAULT("read, no PTE", 0, VA + 0x1010, "mov VA+0x1010,%eax")
  PAGEFAULT("write, no PTE", 2, VA + 0x1010, "mov %eax,VA+0x1010")
  PAGEFAULT3("ring 3 read, no PTE", 4, VA + 0x1010, "mov VA+0x1010,%eax")
  PAGEFAULT3("ring 3 write, no PTE", 6, VA + 0x1010, "mov %eax,VA+0x1010")
  PAGEFAULT("read, no PDE", 0, BIG + 4, "mov BIG+4,%eax")
  PAGEFAULT3("ring 3 write, no PDE", 6, BIG + 4, "mov %eax,BIG+4")
  movl $0xfffffffe, pt + 4
  PAGEFAULT("not present whatever the other bits say", 2, VA + 0x1010, "mov %eax,VA+0x1010")
  PAGEFAULT3("push", 6, VA + 0x1ffc, "push %eax", "mov $VA+0x2000,%esp")
  CASE "fetch from a page that is not there"
  TRY
  mov $VA + 0x1020, %eax
  jmp *%eax
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $0)              // bit 4 only with SMEP, or PAE and NXE (§4.7)
  CHECK(exc_eip, $(VA + 0x1020))
  CHECK(exc_cr2, $(VA + 0x1020))
  CASE "fetch in ring 3 from a supervisor page"
  MAP 1, 3
  TRY
  TO_RING3
  mov $VA + 0x1020, %eax
  jmp *%eax
  ENDTRY
  CHECK(exc_err, $5)
  CHECK(exc_eip, $(VA + 0x1020))
  CASE "a page made present needs no INVLPG"
  movl $0, pt + 4
  FLUSH
  TRY
  mov VA + 0x1000, %eax
  ENDTRY
  CHECK(exc_vec, $PF)
  movl $FRAME + 0x1007, pt + 4
  movl $0x1357, FRAME + 0x1000
  TRY
  mov VA + 0x1000, %ebx
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%ebx, $0x1357)
  ret

.macro CLEAN pde=7, pte=7         // accessed and dirty bits off
  movl $pt + \pde, PDE_
  MAP 2, \pte
  FLUSH
.endm
.macro BITS_ARE pde, pte
  mov PDE_, %eax
  and $0x20, %eax
  CHECK(%eax, $(\pde))
  mov pt + 8, %eax
  and $0x60, %eax
  CHECK(%eax, $(\pte))
.endm
accessed_dirty:                   // §4.8
  CASE "read sets A in both levels"
  CLEAN
  BITS_ARE 0, 0
  mov VA + 0x2000, %eax
  BITS_ARE 0x20, 0x20
  CASE "write after a read sets D"
  movl $1, VA + 0x2000
  BITS_ARE 0x20, 0x60
  CASE "write sets A and D"
  CLEAN
  movl $1, VA + 0x2000
  BITS_ARE 0x20, 0x60
  CASE "A cleared and INVLPG: set again"
  andl $~0x60, pt + 8
  invlpg VA + 0x2000
  mov VA + 0x2000, %eax
  BITS_ARE 0x20, 0x20
  CASE "D cleared and INVLPG: set again"
  movl $1, VA + 0x2000
  andl $~0x40, pt + 8
  invlpg VA + 0x2000
  movl $1, VA + 0x2000
  BITS_ARE 0x20, 0x60
  CASE "write fault in ring 3 sets no D"
  CLEAN 7, 5
  TRY
  TO_RING3
  movl $1, VA + 0x2000
  ENDTRY
  CHECK(exc_err, $7)
  mov pt + 8, %eax
  and $0x40, %eax
  CHECK(%eax, $0)
  CASE "write by ring 0 to a read-only page without WP sets D"
  CLEAN 7, 5
  movl $1, VA + 0x2000
  BITS_ARE 0x20, 0x60
  CASE "fetch sets A, not D"
  movb $0xc3, FRAME + 0x2000
  CLEAN
  mov $VA + 0x2000, %eax
  call *%eax
  BITS_ARE 0x20, 0x20
  CASE "read-modify-write that changes nothing sets D"
  CLEAN
  orl $0, VA + 0x2000
  BITS_ARE 0x20, 0x60
  CASE "failed CMPXCHG sets D"
  CLEAN
  movl $5, FRAME + 0x2000
  mov $6, %eax
  lock cmpxchg %ecx, VA + 0x2000
  BITS_ARE 0x20, 0x60
  CASE "ring 3 read sets A"
  CLEAN
  TRY
  TO_RING3
  mov VA + 0x2000, %eax
  int $EXIT
  ENDTRY
  BITS_ARE 0x20, 0x20
  ret

big_pages:                        // §4.3
  CASE "big page: translation, A and D"
  movl $FRAME + 0x87, PDEBIG
  FLUSH
  movl $0x2468, FRAME + 0x234568
  mov BIG + 0x234568, %ebx
  CHECK(%ebx, $0x2468)
  mov PDEBIG, %eax
  and $0x60, %eax
  CHECK(%eax, $0x20)
  movl $1, BIG
  mov PDEBIG, %eax
  and $0x60, %eax
  CHECK(%eax, $0x60)
  movl $FRAME + 0x83, PDEBIG
  FLUSH
  PAGEFAULT3("big page: supervisor only", 5, BIG + 8, "mov BIG+8,%eax")
  movl $FRAME + 0x85, PDEBIG
  FLUSH
  PAGEFAULT3("big page: read only", 7, BIG + 8, "mov %eax,BIG+8")
  movl $FRAME + 0x200087, PDEBIG
  FLUSH
  PAGEFAULT("big page: bit 21 is reserved", 9, BIG + 8, "mov BIG+8,%eax")
  PAGEFAULT3("big page: reserved bit in ring 3, write", 0xf, BIG + 8, "mov %eax,BIG+8")
  movl $FRAME + 0x200083, PDEBIG
  FLUSH
  PAGEFAULT3("reserved bit and supervisor page", 0xf, BIG + 8, "mov %eax,BIG+8")
  movl $FRAME + 0x200086, PDEBIG
  FLUSH
  PAGEFAULT("reserved bits of an entry that is not present", 2, BIG + 8, "mov %eax,BIG+8")
  CASE "big page replaced by a table and INVLPG"
  movl $FRAME + 0x87, PDEBIG
  FLUSH
  mov BIG, %eax
  movl $pt + 7, PDEBIG
  MAP 0, 7, 5
  movl $0xaaaa, FRAME + 0x5000
  invlpg BIG + 0x123
  mov BIG, %ebx
  CHECK(%ebx, $0xaaaa)
  movl $0, PDEBIG
  FLUSH
  ret

global_pages:                     // §4.10
  CASE "INVLPG drops a page's translation"
  MAP 3, 7
  movl $0x11, FRAME + 0x3000
  movl $0x22, FRAME + 0x4000
  mov VA + 0x3000, %eax
  movl $FRAME + 0x4007, pt + 12
  invlpg VA + 0x3fff
  mov VA + 0x3000, %ebx
  CHECK(%ebx, $0x22)
  CASE "MOV to CR3 drops translations that are not global"
  movl $FRAME + 0x3007, pt + 12
  FLUSH
  mov VA + 0x3000, %ebx
  CHECK(%ebx, $0x11)
  UNLESS cpuid_1d, 13, 1f
  CR4BITS 0x80, 0
  CASE "INVLPG drops a global translation"
  MAP 3, 0x107
  mov VA + 0x3000, %eax
  movl $FRAME + 0x4107, pt + 12
  invlpg VA + 0x3000
  mov VA + 0x3000, %ebx
  CHECK(%ebx, $0x22)
  CASE "clearing CR4.PGE drops global translations"
  movl $FRAME + 0x3107, pt + 12
  CR4BITS 0, 0x80
  mov VA + 0x3000, %ebx
  CHECK(%ebx, $0x11)
  CASE "setting CR4.PGE drops translations"
  movl $FRAME + 0x4107, pt + 12
  CR4BITS 0x80, 0
  mov VA + 0x3000, %ebx
  CHECK(%ebx, $0x22)
  CASE "setting CR4.PGE again drops translations too"
  movl $FRAME + 0x3107, pt + 12
  CR4BITS 0, 0x80
  CR4BITS 0x80, 0
  mov VA + 0x3000, %ebx
  CHECK(%ebx, $0x11)
  CR4BITS 0, 0x80
1: MAP 3, 7
  ret

crossing:
  MAP 4, 7
  movl $0, pt + 20
  invlpg VA + 0x5000
  PAGEFAULT("read into a page that is not there", 0, VA + 0x5000, "mov VA+0x4ffe,%eax")
  movl $0x55555555, FRAME + 0x4ffc
  PAGEFAULT("write into a page that is not there", 2, VA + 0x5000, "movl $-1,VA+0x4ffe")
  CHECK(FRAME + 0x4ffc, $0x55555555)
  PAGEFAULT("write of 8 bytes into it", 2, VA + 0x5000, "fstpl VA+0x4ffb", "fninit; fld1")
  CHECK(FRAME + 0x4ffc, $0x55555555)
  fninit
  movl $0, pt + 12
  invlpg VA + 0x3000
  PAGEFAULT("read out of a page that is not there", 0, VA + 0x3fff, "mov VA+0x3fff,%eax")
  MAP 5, 5
  PAGEFAULT3("ring 3 write into a read-only page", 7, VA + 0x5000, "movl $-1,VA+0x4ffe")
  CHECK(FRAME + 0x4ffc, $0x55555555)
  MAP 5, 3
  PAGEFAULT3("ring 3 read into a supervisor page", 5, VA + 0x5000, "mov VA+0x4ffe,%eax")
  CASE "good write across two frames that are apart"
  MAP 5, 7, 9
  movl $0x44332211, VA + 0x4ffe
  mov FRAME + 0x4ffe, %eax
  and $0xffff, %eax
  CHECK(%eax, $0x2211)
  movzwl FRAME + 0x9000, %eax
  CHECK(%eax, $0x4433)
  mov VA + 0x4ffe, %eax
  CHECK(%eax, $0x44332211)
  CASE "instruction that ends with the page"
  MAP 5, 0
  movl $0x00b8c031, FRAME + 0x4ff9            // xor %eax,%eax; mov $0x77,%eax
  movl $0x00007700, FRAME + 0x4ffc
  movb $0xb8, FRAME + 0x4ffb
  movl $0x77, FRAME + 0x4ffc
  TRY
  mov $VA + 0x4ff9, %ebx
  jmp *%ebx
  ENDTRY
  CHECK(exc_eax, $0x77)
  CHECK(exc_vec, $PF)
  CHECK(exc_eip, $(VA + 0x5000))
  CHECK(exc_cr2, $(VA + 0x5000))
  CASE "instruction that goes on in a page that is not there"
  movb $0xb8, FRAME + 0x4ffe
  TRY
  mov $VA + 0x4ffe, %ebx
  jmp *%ebx
  ENDTRY
  CHECK(exc_eip, $(VA + 0x4ffe))
  CHECK(exc_cr2, $(VA + 0x5000))
  CASE "instruction across two frames that are apart"
  MAP 5, 7, 9
  movl $0xc3001234, FRAME + 0x9000 - 1        // second half: 12 00 00 c3
  movb $0x34, FRAME + 0x4fff
  movl $0xc3000012, FRAME + 0x9000
  mov $VA + 0x4ffe, %ebx
  call *%ebx
  CHECK(%eax, $0x1234)
  ret

atomics:                          // all of them are writes, whatever they find
  MAP 6, 5
  movl $7, FRAME + 0x6000
  PAGEFAULT3("XCHG on a read-only page", 7, VA + 0x6000, "xchg %eax,VA+0x6000")
  PAGEFAULT3("LOCK CMPXCHG on a read-only page", 7, VA + 0x6000, "lock cmpxchg %ecx,VA+0x6000", "mov $1,%eax")
  PAGEFAULT3("CMPXCHG that fails on a read-only page", 7, VA + 0x6000, "cmpxchg %ecx,VA+0x6000", "mov $1,%eax")
  PAGEFAULT3("CMPXCHG8B that fails on a read-only page", 7, VA + 0x6000, "cmpxchg8b VA+0x6000", "mov $1,%eax")
  PAGEFAULT3("INC on a read-only page", 7, VA + 0x6000, "incl VA+0x6000")
  PAGEFAULT3("SHL by zero on a read-only page is a write", 7, VA + 0x6000, "shll %cl,VA+0x6000", "mov $1,%cl")
  PAGEFAULT3("BTS of a set bit on a read-only page", 7, VA + 0x6000, "btsl $0,VA+0x6000")
  PASS3("BT on a read-only page", "btl $0,VA+0x6000")
  PASS3("CMP and TEST on a read-only page", "cmpl $0,VA+0x6000; testl $1,VA+0x6000")
  PAGEFAULT3("bit offset beyond the page", 4, VA + 0x7000, "bt %eax,VA+0x6000", "mov $0x8000,%eax")
  CASE "CMPXCHG that faults leaves EAX"
  TRY
  TO_RING3
  mov $0x1234, %eax
  lock cmpxchg %ecx, VA + 0x6000
  ENDTRY
  CHECK(exc_eax, $0x1234)
  CASE "POP to memory that faults leaves ESP"
  TRY
  TO_RING3
  push $5
  popl VA + 0x6000
  ENDTRY
  CHECK(exc_esp3, $(user_stack_top - 4))
  CASE "CALL by memory whose push faults leaves ESP"
  TRY
  TO_RING3
  mov $VA + 0x7004, %esp
  call 1f
1: nop
  ENDTRY
  CHECK(exc_cr2, $(VA + 0x7000))
  CHECK(exc_esp3, $(VA + 0x7004))
  CASE "PUSHA in ring 3 that faults leaves ESP"
  TRY
  TO_RING3
  mov $VA + 0x8000, %esp
  pusha
  ENDTRY
  CHECK(exc_err, $6)
  CHECK(exc_esp3, $(VA + 0x8000))
  CASE "ENTER that faults leaves ESP and EBP"
  TRY
  TO_RING3
  mov $VA + 0x8000, %esp
  mov $0x1234, %ebp
  enter $8, $0
  ENDTRY
  CHECK(exc_esp3, $(VA + 0x8000))
  CHECK(exc_ebp, $0x1234)
  ret

strings:                          // a repeated instruction stops where it faults, with its registers there
  MAP 0, 7
  MAP 1, 0
  CASE "REP STOSB up to the end of the page"
  TRY
  TO_RING3
  mov $VA + 0xff0, %edi
  mov $0x40, %ecx
  mov $0x5a, %al
98: rep stosb
  ENDTRY
  CHECK(exc_cr2, $(VA + 0x1000))
  CHECK(exc_err, $6)
  CHECK(exc_edi, $(VA + 0x1000))
  CHECK(exc_ecx, $0x30)
  CHECK(exc_eip, $98b)
  CHECK(FRAME + 0xffc, $0x5a5a5a5a)
  CASE "REP MOVSL: the faulting element counts as not done"
  TRY
  TO_RING3
  mov $VA + 0xff2, %esi
  mov $VA + 0x100, %edi
  mov $0x10, %ecx
  rep movsl
  ENDTRY
  CHECK(exc_cr2, $(VA + 0x1000))
  CHECK(exc_err, $4)
  CHECK(exc_esi, $(VA + 0xffe))
  CHECK(exc_edi, $(VA + 0x10c))
  CHECK(exc_ecx, $0xd)
  CASE "REP MOVSB downwards"
  TRY
  TO_RING3
  std
  mov $VA + 0x2003, %esi
  mov $VA + 0x203, %edi
  mov $8, %ecx
  rep movsb
  ENDTRY
  CHECK(exc_vec, $PF)
  MAP 2, 7
  TRY
  TO_RING3
  std
  mov $VA + 0x2003, %esi
  mov $VA + 0x203, %edi
  mov $8, %ecx
  rep movsb
  ENDTRY
  CHECK(exc_cr2, $(VA + 0x1fff))
  CHECK(exc_ecx, $4)
  CHECK(exc_esi, $(VA + 0x1fff))
  CHECK(exc_edi, $(VA + 0x1ff))
  CASE "REPE CMPSB that faults"
  TRY
  TO_RING3
  mov $VA + 0xffc, %esi
  mov $VA + 0xffc, %edi
  mov $8, %ecx
  repe cmpsb
  ENDTRY
  CHECK(exc_ecx, $4)
  CHECK(exc_cr2, $(VA + 0x1000))
  CASE "REP with ECX 0 touches nothing"
  TRY
  TO_RING3
  mov $VA + 0x1000, %edi
  xor %ecx, %ecx
  rep stosl
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  ret

implicit:                         // accesses to descriptor tables are supervisor accesses in every ring (§4.6.1)
  movl $gdt, %eax
  and $~0xfff, %eax
  or $3, %eax
  mov %eax, pt + 4*8
  add $0x1000, %eax
  mov %eax, pt + 4*9
  movw $511, gdtr_alias
  movl $gdt, %eax
  and $0xfff, %eax
  add $GDTALIAS, %eax
  mov %eax, gdtr_alias + 2
  lgdt gdtr_alias
  FLUSH
  CASE "ring 3 loads a selector from a table on a supervisor page"
  TRY
  TO_RING3
  mov $DATA3, %eax
  mov %eax, %ds
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  CASE "table not present: error code says supervisor"
  movw $0xffff, gdtr_alias        // the GDT's limit reaches into pages that are not there
  lgdt gdtr_alias
  movl $0, pt + 4*10
  FLUSH
  TRY
  TO_RING3
  mov $0x2003, %eax
98: mov %eax, %ds
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $0)
  CHECK(exc_eip, $98b)
  mov gdtr_alias + 2, %eax
  add $0x2000, %eax
  CHECK(exc_cr2, %eax)
  lgdt boot_gdtr
  CASE "accessed bit of a descriptor is written though the page is read-only"
  andl $~2, pt + 4*8
  andl $~2, pt + 4*9
  FLUSH
  movw $511, gdtr_alias
  lgdt gdtr_alias
  SEGMENT FREE, 0, 0xfffff, 0x92, 0xc
  TRY
  mov $FREE, %eax
  mov %eax, %fs
  ENDTRY
  CHECK(exc_vec, $NONE)
  movzbl gdt + FREE + 5, %eax
  CHECK(%eax, $0x93)
  CASE "with WP it faults as a supervisor write"
  SEGMENT FREE, 0, 0xfffff, 0x92, 0xc
  WP_ON
  TRY
  mov $FREE, %eax
  mov %eax, %fs
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $3)
  WP_OFF
  lgdt boot_gdtr
  ret

supervisor_only:                  // SMEP, SMAP: §4.6
  UNLESS cpuid_7b, 7, 1f
  movl $0x000000c3, FRAME + 0xb000
  MAP 11, 7
  CASE "ring 0 runs a user page without SMEP"
  TRY
  mov $VA + 0xb000, %eax
  call *%eax
  ENDTRY
  CHECK(exc_vec, $NONE)
  andl $~4, pd                    // the guest itself on supervisor pages
  CR4BITS 0x100000, 0
  FLUSH
  CASE "SMEP: ring 0 must not run a user page"
  TRY
  mov $VA + 0xb000, %eax
  call *%eax
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $0x11)
  CHECK(exc_eip, $(VA + 0xb000))
  PASS("SMEP: reading and writing it is free", "mov VA+0xb000,%eax; mov %eax,VA+0xb000")
  CASE "SMEP: fetch from nowhere says so"
  TRY
  movl $0, pt + 4*12
  invlpg VA + 0xc000
  mov $VA + 0xc000, %eax
  jmp *%eax
  ENDTRY
  CHECK(exc_err, $0x10)
  CASE "SMEP: supervisor page runs"
  MAP 11, 3
  TRY
  mov $VA + 0xb000, %eax
  call *%eax
  ENDTRY
  CHECK(exc_vec, $NONE)
  CR4BITS 0, 0x100000
  orl $4, pd
  FLUSH
  jmp 2f
1: SKIP "SMEP: no such feature"
2: UNLESS cpuid_7b, 20, 3f
  MAP 11, 7
  FAULT("STAC in ring 3", UD, 0, "stac", "TO_RING3")
  // The table's first page stays the supervisor's, for the handler; the next one is a user page full of data descriptors.
  mov $FRAME + 0xd000, %edi
  mov $512, %ecx
1: movl $0x0000ffff, (%edi)
  movl $0x00cf9300, 4(%edi)
  add $8, %edi
  loop 1b
  andl $~4, pd
  CR4BITS 0x200000, 0
  FLUSH
  PAGEFAULT("SMAP: read", 1, VA + 0xb004, "mov VA+0xb004,%eax")
  PAGEFAULT("SMAP: write", 3, VA + 0xb004, "mov %eax,VA+0xb004")
  PASS("SMAP: with AC", "stac; mov VA+0xb004,%eax; mov %eax,VA+0xb004; clac")
  PAGEFAULT("SMAP: after CLAC", 1, VA + 0xb004, "mov VA+0xb004,%eax", "stac; clac")
  CASE "SMAP: descriptor tables on user pages, AC does not help"
  movl $FRAME + 0xd000 + 7, pt + 4*9
  FLUSH
  mov $gdt, %eax
  and $0xff8, %eax
  mov $0x1008, %ebx               // a selector of the second page
  sub %eax, %ebx
  movw $0x1fff, gdtr_alias
  TRY
  lgdt gdtr_alias
  stac
98: mov %ebx, %fs
  ENDTRY
  lgdt boot_gdtr
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $1)
  CHECK(exc_eip, $98b)
  CR4BITS 0, 0x200000
  orl $4, pd
  FLUSH
  ret
3: SKIP "SMAP: no such feature"
  ret

paging_off:
  CASE "PG cleared: addresses are physical again"
  MAP 0, 7, 5
  movl $0x99, FRAME
  mov $FRAME, %esi
  movl $FRAME + 0x400087, pd + 4*(FRAME >> 22)
  FLUSH
  mov (%esi), %eax
  mov %cr0, %ecx
  and $0x7fffffff, %ecx
  mov %ecx, %cr0
  jmp 1f
1: mov (%esi), %ebx
  CHECK(%ebx, $0x99)
  ret

  .section .bss
  .align 4096
pd: .skip 4096
pt: .skip 4096
gdtr_alias: .skip 8
