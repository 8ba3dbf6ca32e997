// 4-level paging in 64-bit mode: permissions at every level, NX, A and D, 2 MiB and 1 GiB pages, reserved bits, SMEP, SMAP,
// both halves of the address space. SDM vol. 3A §4.5 to 4.8, 4.10.
#define LONG
#include "guest.inc"
GUEST "paging64"
.set VA, 0xffff900000000000       // kernel half; indices: PML4 288, then 0, 0, 0
.set USERVA, 0x0000700000000000   // the same tables from the lower half, PML4 224
.set FRAME, 0x2000000
.set P4, pml4 + 8*288
.set NXBIT, 0x8000000000000000

// Entries of all four levels above the page under test; each an 8-byte value.
.macro ENTRIES l4=7, l3=7, l2=7, l1=7
  movq $(t3 + \l4), P4
  movq $(t2 + \l3), t3
  movq $(t1 + \l2), t2
  movq $(FRAME + \l1), t1
  FLUSH
.endm
.macro FLUSH
  mov %cr3, %rax
  mov %rax, %cr3
.endm
.macro HIGHBIT entry, bit
  btsq $\bit, \entry
.endm
.macro FAULTS name, ring, err, insn, at=VA+0x123
  CASE "\name"
  TRY
  .if \ring == 3
  TO_RING3
  .endif
  movabs $(\at), %rbx
98: \insn
  int $EXIT
  ENDTRY
  CHECKm 101, exc_vec, $PF
  CHECKm 102, exc_err, $(\err)
  movabs $(\at), %rax
  CHECKm 103, exc_cr2, %rax
  CHECKm 104, exc_eip, $98b
.endm
.macro WORKS name, ring, insn, at=VA+0x123
  CASE "\name"
  TRY
  .if \ring == 3
  TO_RING3
  .endif
  movabs $(\at), %rbx
  \insn
  int $EXIT
  ENDTRY
  CHECKm 105, exc_vec, $EXIT
.endm
// Runs the RET or INT 30H that lies at the page: fault at the target, or none.
.macro FETCH name, ring, err, at=VA
  CASE "\name"
  TRY
  .if \ring == 3
  TO_RING3
  .endif
  movabs $(\at), %rbx
  jmp *%rbx
  ENDTRY
  CHECKm 106, exc_vec, $PF
  CHECKm 107, exc_err, $(\err)
  movabs $(\at), %rax
  CHECKm 108, exc_eip, %rax
  CHECKm 109, exc_cr2, %rax
.endm
.macro FETCHOK name, ring, at=VA
  CASE "\name"
  TRY
  .if \ring == 3
  TO_RING3
  .endif
  movabs $(\at), %rbx
  jmp *%rbx
  ENDTRY
  CHECKm 110, exc_vec, $EXIT
  movabs $(\at + 2), %rax
  CHECKm 111, exc_eip, %rax
.endm

  .code64
guest_main:
  movw $0x30cd, FRAME             // INT 30H, the way out, in the page under test
  mov %cr0, %rax
  or $0x10000, %eax               // WP
  mov %rax, %cr0
  call levels
  call missing
  call accessed_dirty
  call no_execute
  call big_pages
  call reserved
  call halves
  call crossing
  call stale
  call smep_smap
  FINISH

// U/S and R/W cleared in one level at a time.
levels:
  ENTRIES
  WORKS "all levels open: ring 3 write", 3, "movb $1,(%rbx)"
  .macro LEVEL level, args:vararg
  ENTRIES \args
  FAULTS "read-only in level \level: ring 3 write", 3, 7, "movb $1,(%rbx)"
  FAULTS "read-only in level \level: ring 0 write", 0, 3, "movb $1,(%rbx)"
  WORKS "read-only in level \level: ring 3 read", 3, "movb (%rbx),%al"
  .endm
  LEVEL 4, 5, 7, 7, 7
  LEVEL 3, 7, 5, 7, 7
  LEVEL 2, 7, 7, 5, 7
  LEVEL 1, 7, 7, 7, 5
  .macro SLEVEL level, args:vararg
  ENTRIES \args
  FAULTS "supervisor in level \level: ring 3 read", 3, 5, "movb (%rbx),%al"
  FAULTS "supervisor in level \level: ring 3 write", 3, 7, "movb %al,(%rbx)"
  WORKS "supervisor in level \level: ring 0 write", 0, "movb %al,(%rbx)"
  .endm
  SLEVEL 4, 3, 7, 7, 7
  SLEVEL 3, 7, 3, 7, 7
  SLEVEL 2, 7, 7, 3, 7
  SLEVEL 1, 7, 7, 7, 3
  mov %cr0, %rax
  and $~0x10000, %eax
  mov %rax, %cr0
  ENTRIES l4=5, l3=5, l2=5, l1=5
  WORKS "without WP ring 0 writes anywhere", 0, "movb $1,(%rbx)"
  FAULTS "without WP ring 3 does not", 3, 7, "movb $1,(%rbx)"
  mov %cr0, %rax
  or $0x10000, %eax
  mov %rax, %cr0
  ret

missing:
  .macro GONE level, args:vararg
  ENTRIES \args
  FAULTS "nothing in level \level: read", 0, 0, "movb (%rbx),%al"
  FAULTS "nothing in level \level: ring 3 write", 3, 6, "movb %al,(%rbx)"
  .endm
  GONE 4, 6, 7, 7, 7
  GONE 3, 7, 6, 7, 7
  GONE 2, 7, 7, 6, 7
  GONE 1, 7, 7, 7, 6
  CASE "an entry made present needs no INVLPG"
  ENTRIES l1=6
  TRY
  movabs $VA, %rbx
  mov (%rbx), %al
  ENDTRY
  CHECK(exc_vec, $PF)
  orl $1, t1
  TRY
  mov (%rbx), %al
  ENDTRY
  CHECK(exc_vec, $NONE)
  ret

.macro AD_ARE l4, l3, l2, l1
  .irp e, P4, t3, t2, t1
  mov \e, %rax
  and $0x60, %eax
  shl $8, %rbx
  or %rax, %rbx
  .endr
  mov %ebx, %ebx
  mov $((\l4 << 24) | (\l3 << 16) | (\l2 << 8) | \l1), %eax
  CHECK(%rbx, %rax)
.endm
accessed_dirty:
  movabs $VA, %rsi
  CASE "read sets A in all four"
  ENTRIES
  mov (%rsi), %al
  AD_ARE 0x20, 0x20, 0x20, 0x20
  CASE "write sets D in the last only"
  movb $0xcd, (%rsi)
  AD_ARE 0x20, 0x20, 0x20, 0x60
  CASE "write to a clean page"
  ENTRIES
  movb $0xcd, (%rsi)
  AD_ARE 0x20, 0x20, 0x20, 0x60
  CASE "D cleared and INVLPG: set again by the next write"
  andl $~0x40, t1
  invlpg (%rsi)
  mov (%rsi), %al
  AD_ARE 0x20, 0x20, 0x20, 0x20
  movb $0xcd, (%rsi)
  AD_ARE 0x20, 0x20, 0x20, 0x60
  CASE "write that may not sets no D"
  ENTRIES l1=5
  TRY
  movb $0xcd, (%rsi)
  ENDTRY
  mov t1, %rax
  and $0x40, %eax
  CHECK(%rax, $0)
  CASE "upper halves of the entries are left alone"
  movabs $VA, %rsi                // TRY keeps no registers
  ENTRIES
  btsq $52, t1                    // free for software
  btsq $62, t1                    // free: protection keys are off
  movb $0xcd, (%rsi)
  mov t1+4, %eax
  CHECK(%rax, $0x40100000)
  ENTRIES
  ret

no_execute:
  UNLESS cpuid_xd, 20, 9f
  ENTRIES
  FETCHOK "ring 0 runs it", 0
  FETCHOK "ring 3 runs it", 3
  .macro NXLEVEL level, entry
  ENTRIES
  btsq $63, \entry
  FLUSH
  FETCH "NX in level \level", 0, 0x11
  FETCH "NX in level \level, ring 3", 3, 0x15
  WORKS "NX in level \level: writes are good", 3, "movb %al,(%rbx)"
  .endm
  NXLEVEL 4, P4
  NXLEVEL 3, t3
  NXLEVEL 2, t2
  NXLEVEL 1, t1
  ENTRIES l1=6
  FETCH "nothing there", 0, 0x10
  FETCH "nothing there in ring 3", 3, 0x14
  ENTRIES l1=3
  FETCH "supervisor page in ring 3", 3, 0x15
  ENTRIES
  CASE "NXE cleared: bit 63 is reserved"
  btsq $63, t1
  mov $0xc0000080, %ecx
  rdmsr
  and $~0x800, %eax
  wrmsr
  FLUSH
  TRY
  movabs $VA, %rbx
  mov (%rbx), %al
  ENDTRY
  mov $0xc0000080, %ecx
  rdmsr
  or $0x800, %eax
  wrmsr
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $9)
  ENTRIES
  ret
9: SKIP "NX: no such feature"
  ret

big_pages:
  movl $0x1357, FRAME + 0x123450
  CASE "2 MiB page"
  ENTRIES
  movq $(FRAME + 0x87), t2
  FLUSH
  movabs $VA + 0x123450, %rbx
  mov (%rbx), %eax
  CHECK(%rax, $0x1357)
  mov t2, %rax
  and $0x60, %eax
  CHECK(%rax, $0x20)
  incl (%rbx)
  mov t2, %rax
  and $0x60, %eax
  CHECK(%rax, $0x60)
  movq $(FRAME + 0x85), t2
  FLUSH
  FAULTS "2 MiB page: read-only", 3, 7, "movb %al,(%rbx)", VA+0x1fffff
  FAULTS "2 MiB page: end", 0, 0, "mov (%rbx),%al", VA+0x200000
  UNLESS cpuid_xd, 26, 9f
  CASE "1 GiB page"
  ENTRIES
  movq $0x87, t3
  FLUSH
  movabs $VA + FRAME + 0x123450, %rbx
  mov (%rbx), %eax
  CHECK(%rax, $0x1358)
  incl (%rbx)
  mov t3, %rax
  and $0x60, %eax
  CHECK(%rax, $0x60)
  movq $0x83, t3
  FLUSH
  FAULTS "1 GiB page: supervisor", 3, 5, "movb (%rbx),%al", VA+0x2345678
  movq $0x2087, t3
  FLUSH
  FAULTS "1 GiB page: bit 13 is reserved", 0, 9, "movb (%rbx),%al", VA+0x2345678
  movq $0x20000087, t3
  FLUSH
  FAULTS "1 GiB page: bit 29 is reserved", 3, 0xf, "movb %al,(%rbx)", VA+0x2345678
  ENTRIES
  ret
9: CASE "PS in level 3 is reserved where there are no 1 GiB pages"
  ENTRIES
  orl $0x80, t3
  FLUSH
  TRY
  movabs $VA, %rbx
  mov (%rbx), %al
  ENDTRY
  CHECK(exc_err, $9)
  ENTRIES
  ret

reserved:
  .macro RESERVED name, bit, entry
  ENTRIES
  btsq $\bit, \entry
  FLUSH
  FAULTS "\name is reserved", 0, 9, "movb (%rbx),%al"
  FAULTS "\name is reserved, ring 3 write", 3, 0xf, "movb %al,(%rbx)"
  .endm
  RESERVED "level 4: PS", 7, P4
  RESERVED "level 4: bit 51", 51, P4
  RESERVED "level 3: bit 51", 51, t3
  RESERVED "level 2: bit 51", 51, t2
  RESERVED "level 1: bit 51", 51, t1
  ENTRIES
  movq $(FRAME + 0x2087), t2
  FLUSH
  FAULTS "2 MiB page: bit 13 is reserved", 0, 9, "movb (%rbx),%al"
  ENTRIES l1=6
  btsq $51, t1
  FLUSH
  FAULTS "reserved bit of an entry that is not present", 0, 2, "movb %al,(%rbx)"
  ENTRIES l2=3
  btsq $51, t1
  FLUSH
  FAULTS "reserved bit and supervisor", 3, 0xd, "movb (%rbx),%al"
  ENTRIES
  ret

halves:
  CASE "one frame by both halves"
  ENTRIES
  movq $(t3 + 7), pml4 + 8*224
  FLUSH
  movabs $VA + 0x800, %rbx
  movabs $USERVA + 0x800, %rsi
  movl $0xabcd, (%rbx)
  mov (%rsi), %eax
  CHECK(%rax, $0xabcd)
  CASE "last byte of the lower half, first of the upper"
  movq $(t3 + 7), pml4 + 8*255
  movq $(t3b + 7), pml4 + 8*256
  movq $(t2b + 7), t3b
  movq $(FRAME + 0x87), t2b
  movq $(t2b + 7), t3 + 8*511
  movq $(FRAME + 0x87), t2b + 8*511
  FLUSH
  movabs $0x7fffffffffff, %rbx
  movb $0x5a, (%rbx)
  movabs $0xffff800000000000, %rsi
  movb $0x5b, 1(%rsi)
  movzbl FRAME + 0x1fffff, %eax
  CHECK(%rax, $0x5a)
  movzbl FRAME + 1, %eax
  CHECK(%rax, $0x5b)
  movw $0x30cd, FRAME
  CASE "code in the upper half, RIP-relative data, CALL and RET"
  mov $far_code, %esi
  mov $FRAME + 0x40, %edi
  mov $far_code_end - far_code, %ecx
  rep movsb
  movabs $VA + 0x40, %rax
  call *%rax
  CHECK(%rax, $0x2222)
  movq $0, pml4 + 8*255
  movq $0, pml4 + 8*256
  movq $0, pml4 + 8*224
  FLUSH
  ret
far_code:
  call 2f
  mov 1f(%rip), %eax
  ret
1: .long 0x1111
2: addl $0x1111, 1b(%rip)
  ret
far_code_end:

crossing:
  ENTRIES
  movq $0, t1 + 8
  FLUSH
  FAULTS "write into a page that is not there", 0, 2, "mov %rax,-4(%rbx)", VA+0x1000
  movl $0x55555555, FRAME + 0xffc
  FAULTS "and nothing was written", 3, 6, "movq $0,-4(%rbx)", VA+0x1000
  mov FRAME + 0xffc, %eax
  CHECK(%rax, $0x55555555)
  movq $(FRAME + 0x5000 + 5), t1 + 8
  FLUSH
  FAULTS "SSE store into a read-only page", 3, 7, "movups %xmm0,-8(%rbx)", VA+0x1000
  mov FRAME + 0xffc, %eax
  CHECK(%rax, $0x55555555)
  movq $(FRAME + 0x5000 + 7), t1 + 8
  CASE "good store across frames that are apart"
  FLUSH
  movabs $VA + 0xffc, %rbx
  movabs $0x1122334455667788, %rax
  mov %rax, (%rbx)
  mov FRAME + 0xffc, %eax
  cmp $0x55667788, %eax
  sete %cl
  mov FRAME + 0x5000, %eax
  CHECK(%rax, $0x11223344)
  mov (%rbx), %rax
  mov %rax, %rdx
  movabs $0x1122334455667788, %rax
  CHECK(%rdx, %rax)
  CASE "RSP is restored when a CALL's push faults"
  movq $0, t1 + 16
  FLUSH
  TRY
  TO_RING3
  movabs $VA + 0x3000, %rsp
  call *%rax
  ENDTRY
  CHECK(exc_vec, $PF)
  movabs $VA + 0x3000, %rax
  CHECK(exc_esp3, %rax)
  CASE "REP MOVSQ stops at the page"
  movq $(FRAME + 7), t1
  TRY
  TO_RING3
  movabs $VA + 0x1f80, %rdi
  movabs $VA, %rsi
  mov $64, %ecx
  rep movsq
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $6)
  CHECK(exc_ecx, $48)
  movabs $VA + 0x2000, %rax
  CHECK(exc_edi, %rax)
  movw $0x30cd, FRAME
  ret

stale:                            // what INVLPG and MOV to CR3 must drop
  CASE "INVLPG drops a page of 2 MiB whole"
  ENTRIES
  movq $(FRAME + 0x87), t2
  movabs $VA, %rbx
  FLUSH
  mov (%rbx), %eax
  mov 0x1f0000(%rbx), %eax
  movl $7, FRAME + 0x9000
  movq $(FRAME + 0x9000 + 7), t1 + 8*0x1f0
  movq $(t1 + 7), t2
  invlpg (%rbx)
  mov 0x1f0000(%rbx), %eax
  movq $0, t1 + 8*0x1f0
  CHECK(%rax, $7)
  CASE "INVLPG drops a page of the last level"
  ENTRIES
  movabs $VA, %rbx
  movl $1, FRAME + 0x6000
  mov (%rbx), %eax
  movq $(FRAME + 0x6000 + 7), t1
  invlpg (%rbx)
  mov (%rbx), %eax
  CHECK(%rax, $1)
  CASE "INVLPG after a change in level 2"
  movl $2, FRAME + 0x7000
  movq $(FRAME + 0x7000 + 7), t1b
  movq $(t1b + 7), t2
  invlpg (%rbx)
  mov (%rbx), %eax
  CHECK(%rax, $2)
  CASE "MOV to CR3 after a change in level 3"
  movl $3, FRAME + 0x8000
  movq $(t2b + 7), t3
  movq $(t1c + 7), t2b
  movq $(FRAME + 0x8000 + 7), t1c
  FLUSH
  mov (%rbx), %eax
  CHECK(%rax, $3)
  CASE "a global page and CR4.PGE"
  movq $(FRAME + 0x6000 + 0x107), t1c
  mov %cr4, %rax
  or $0x80, %eax
  mov %rax, %cr4
  mov (%rbx), %eax
  movq $(FRAME + 0x7000 + 0x107), t1c
  mov %cr4, %rax
  and $~0x80, %eax
  mov %rax, %cr4
  mov (%rbx), %eax
  CHECK(%rax, $2)
  CASE "a permission taken away and INVLPG"
  movl $5, (%rbx)
  andl $~2, t1c
  invlpg (%rbx)
  TRY
  movl $6, (%rbx)
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_err, $3)
  CASE "a permission given needs at most one fault"
  orl $2, t1c
  TRY
  movl $6, (%rbx)
  ENDTRY
  cmpq $PF, exc_vec
  jne 1f
  TRY
  movl $6, (%rbx)
  ENDTRY
1: CHECK(exc_vec, $NONE)
  ENTRIES
  ret

smep_smap:
  UNLESS cpuid_7b, 7, 9f
  ENTRIES
  btrl $2, pml4                   // the guest itself on supervisor pages
  FLUSH
  mov %cr4, %rax
  or $0x100000, %eax
  mov %rax, %cr4
  FETCH "SMEP: user page in ring 0", 0, 0x11
  ENTRIES l4=3
  FETCHOK "SMEP: supervisor by level 4", 0
  ENTRIES l1=3
  FETCHOK "SMEP: supervisor by level 1", 0
  ENTRIES
  mov %cr4, %rax
  and $~0x100000, %eax
  mov %rax, %cr4
  UNLESS cpuid_7b, 20, 8f
  mov %cr4, %rax
  or $0x200000, %eax
  mov %rax, %cr4
  FAULTS "SMAP: read", 0, 1, "mov (%rbx),%al"
  FAULTS "SMAP: write", 0, 3, "mov %al,(%rbx)"
  WORKS "SMAP: with AC", 0, "stac; mov %al,64(%rbx); clac"
  FETCHOK "SMAP does not stop fetches", 0
  CASE "SMAP: interrupt and IRETQ keep AC" // the handler's RFLAGS has it still: only SYSCALL's mask and CLAC clear it
  TRY
  stac
  int $0x40
  ENDTRY
  mov exc_hfl, %rax
  and $0x40000, %eax
  CHECK(%rax, $0x40000)
  CASE "SMAP: a stack in user memory, with AC" // without it the fault's own frame would fault
  TRY
  stac
  movabs $VA + 0x800, %rsp
  push %rax
  pop %rax
  ENDTRY
  clac
  CHECK(exc_vec, $NONE)
  mov %cr4, %rax
  and $~0x200000, %eax
  mov %rax, %cr4
8: btsl $2, pml4
  FLUSH
  ret
9: SKIP "SMEP, SMAP: no such features"
  ret

  .section .bss
  .align 4096
t3: .skip 4096
t2: .skip 4096
t1: .skip 4096
t3b: .skip 4096
t2b: .skip 4096
t1b: .skip 4096
t1c: .skip 4096
