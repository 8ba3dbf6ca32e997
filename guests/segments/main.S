// Segment and descriptor checks in 32-bit protected mode. SDM vol. 3A ch. 3 and 5, vol. 2A LAR, LSL, vol. 2B MOV, VERR.
#include "guest.inc"
GUEST "segments"
.set S1, FREE                     // segments under test
.set S2, FREE + 0x08
.set LDTS, FREE + 0x10
.set TSS2, FREE + 0x18
.set CGATE, FREE + 0x20
.set OUTSIDE, 0x1000              // beyond the GDT's limit

  .code32
guest_main:
  movl $0x600, %eax
  mov %eax, %cr4
  call null_selectors
  call loads
  call ring3_loads
  call limits
  call expand_down
  call types
  call accessed
  call stack_loads
  call far_pointers
  call access_rights
  call arpl_
  call ldt_and_tr
  call small_stack
  FINISH

.macro LOADFAULT name, sreg, sel, vec, err
  FAULTm 100, "\name", \vec, (\err), "mov %eax,%\sreg", "mov $(\sel),%eax"
.endm
.macro LOADFAULT3 name, sreg, sel, vec, err
  FAULT3m 100, "\name", \vec, (\err), "mov %eax,%\sreg", "mov $(\sel),%eax"
.endm

null_selectors:
  PASS("null into DS, ES, FS, GS", "xor %eax,%eax; mov %eax,%ds; mov %eax,%es; mov %eax,%fs; mov %eax,%gs")
  PASS("null with RPL 3 too", "mov $3,%eax; mov %eax,%es; mov %eax,%fs")
  FAULT("read by a null DS", GP, 0, "mov 0,%ebx", "xor %eax,%eax; mov %eax,%ds")
  FAULT("write by a null FS", GP, 0, "mov %eax,%fs:0", "mov $2,%eax; mov %eax,%fs")
  FAULT("STOSB by a null ES", GP, 0, "stosb", "xor %eax,%eax; mov %eax,%es; mov $scratch,%edi")
  FAULT("CMPXCHG8B by a null GS", GP, 0, "cmpxchg8b %gs:0", "xor %eax,%eax; mov %eax,%gs")
  LOADFAULT "null into SS", ss, 0, GP, 0
  LOADFAULT "null with RPL 3 into SS", ss, 3, GP, 0
  LOADFAULT3 "null into SS in ring 3", ss, 3, GP, 0
  PASS("LEA by a null segment is no access", "xor %eax,%eax; mov %eax,%fs; .byte 0x64; lea 5(%eax),%ebx")
  CASE "loading DS from memory by itself"
  TRY
  movw $DATA0, scratch
  mov scratch, %ds
  ENDTRY
  CHECK(exc_vec, $NONE)
  ret

loads:
  LOADFAULT "selector beyond the GDT", ds, OUTSIDE, GP, OUTSIDE
  LOADFAULT "selector beyond the GDT: RPL is not in the error code", es, OUTSIDE+3, GP, OUTSIDE
  LOADFAULT "selector of the LDT without one", fs, 0x4c+3, GP, 0x4c
  LOADFAULT "last bytes of the GDT outside its limit", gs, 0x200, GP, 0x200
  SEGMENT S1, 0, 0xfffff, 0x13, 0xc
  LOADFAULT "data not present into DS", ds, S1, NP, S1
  LOADFAULT "data not present into SS", ss, S1, SS, S1
  SEGMENT S1, 0, 0xfffff, 0x13, 0xc
  LOADFAULT "not present with RPL 3: privilege is checked first", ds, S1+3, GP, S1
  SEGMENT S1, 0, 0xfffff, 0x99, 0xc
  LOADFAULT "execute-only code into DS", ds, S1, GP, S1
  LOADFAULT "TSS into DS", ds, TSS0, GP, TSS0
  SEGMENT S1, 0, 0xfffff, 0x19, 0xc
  LOADFAULT "execute-only code not present: type is checked first", ds, S1, GP, S1
  CASE "readable code into DS can be read"
  TRY
  movl $0x1234, scratch
  mov $CODE0, %eax
  mov %eax, %fs
  mov %fs:scratch, %ebx
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%ebx, $0x1234)
  FAULT("readable code in DS cannot be written", GP, 0, "mov %eax,%fs:scratch", "mov $CODE0,%eax; mov %eax,%fs")
  SEGMENT S1, 0, 0xfffff, 0x91, 0xc
  FAULT("read-only data cannot be written", GP, 0, "mov %eax,%fs:scratch", "mov $S1,%eax; mov %eax,%fs")
  FAULT("read-modify-write of read-only data", GP, 0, "incl %fs:scratch", "mov $S1,%eax; mov %eax,%fs")
  PASS("read-only data can be read", "mov $S1,%eax; mov %eax,%fs; mov %fs:scratch,%ebx")
  FAULT("CS override for a write", GP, 0, "mov %eax,%cs:scratch")
  CASE "the register keeps its old selector when a load faults"
  TRY
  mov $DATA3, %eax
  mov %eax, %fs
  mov $OUTSIDE, %eax
  mov %eax, %fs
  ENDTRY
  CHECK(exc_fs, $DATA3)
  CASE "a descriptor changed in memory counts at the next load only"
  SEGMENT S1, 0, 0xfffff, 0x93, 0xc
  TRY
  mov $S1, %eax
  mov %eax, %fs
  movb $0x13, gdt+S1+5
  mov %fs:scratch, %ebx
98: mov %eax, %fs
  ENDTRY
  CHECK(exc_vec, $NP)
  CHECK(exc_eip, $98b)
  CASE "MOV from a segment register: 16 bits to memory, zeros above in a register"
  movl $-1, scratch
  mov %ds, scratch
  CHECK(scratch, $0xffff0010)
  mov $-1, %eax
  mov %ds, %eax
  CHECK(%eax, $0x10)
  CASE "PUSH of a segment register takes four bytes"
  mov %esp, %ebx
  push %ds
  sub %esp, %ebx
  add $4, %esp
  CHECK(%ebx, $4)
  ret

ring3_loads:                      // §5.5: max(CPL, RPL) <= DPL
  LOADFAULT3 "ring 3: data of DPL 0", ds, DATA0, GP, DATA0
  LOADFAULT3 "ring 3: data of DPL 0 with RPL 3", ds, DATA0+3, GP, DATA0
  LOADFAULT "ring 0: data of DPL 0 with RPL 3", ds, DATA0+3, GP, DATA0
  LOADFAULT "ring 0: data of DPL 0 with RPL 1", es, DATA0+1, GP, DATA0
  PASS("ring 0: data of DPL 3 with any RPL", "mov $DATA3,%eax; mov %eax,%fs; mov $DATA3&~3,%eax; mov %eax,%fs")
  PASS3("ring 3: data of DPL 3 with RPL 0", "mov $DATA3&~3,%eax; mov %eax,%fs")
  SEGMENT S1, 0, 0xfffff, 0x9b, 0xc
  LOADFAULT3 "ring 3: readable code of DPL 0", ds, S1+3, GP, S1
  SEGMENT S1, 0, 0xfffff, 0x9f, 0xc
  PASS3("ring 3: conforming readable code of DPL 0", "mov $S1+3,%eax; mov %eax,%fs; mov %fs:scratch,%ebx")
  SEGMENT S1, 0, 0xfffff, 0xd3, 0xc
  LOADFAULT3 "ring 3: data of DPL 2", gs, S1+3, GP, S1
  LOADFAULT3 "ring 3: stack of DPL 0", ss, DATA0, GP, DATA0
  LOADFAULT3 "ring 3: stack of DPL 3 with RPL 0", ss, DATA3&~3, GP, DATA3&~3
  LOADFAULT "ring 0: stack of DPL 3", ss, DATA3, GP, DATA3&~3
  LOADFAULT "ring 0: stack of DPL 0 with RPL 3", ss, DATA0+3, GP, DATA0
  ret

.macro IN_FS lim, acc, fl
  SEGMENT S1, 0, \lim, \acc, \fl
  mov $S1, %eax
  mov %eax, %fs
.endm
limits:
  SEGMENT S1, 0, 0x1000, 0x93, 4
  PASS("byte limit: last byte", "mov $S1,%eax; mov %eax,%fs; mov %fs:0x1000,%bl")
  FAULT("byte limit: next byte", GP, 0, "mov %fs:0x1001,%bl", "mov $S1,%eax; mov %eax,%fs")
  PASS("byte limit: last dword", "mov $S1,%eax; mov %eax,%fs; mov %fs:0xffd,%ebx")
  FAULT("byte limit: dword over it", GP, 0, "mov %fs:0xffe,%ebx", "mov $S1,%eax; mov %eax,%fs")
  FAULT("byte limit: word over it", GP, 0, "mov %bx,%fs:0x1000", "mov $S1,%eax; mov %eax,%fs")
  FAULT("byte limit: 8 bytes over it", GP, 0, "fldl %fs:0xffa", "mov $S1,%eax; mov %eax,%fs")
  FAULT("byte limit: 16 bytes over it", GP, 0, "movups %fs:0xff2,%xmm0", "mov $S1,%eax; mov %eax,%fs")
  PASS("byte limit: last 16 bytes", "mov $S1,%eax; mov %eax,%fs; movups %fs:0xff1,%xmm0")
  FAULT("access that wraps at 4 GiB", GP, 0, "mov %fs:-2,%ebx", "mov $S1,%eax; mov %eax,%fs")
  SEGMENT S1, 0, 1, 0x93, 0xc
  PASS("page limit: last byte", "mov $S1,%eax; mov %eax,%fs; mov %fs:0x1fff,%bl")
  FAULT("page limit: next byte", GP, 0, "mov %fs:0x2000,%bl", "mov $S1,%eax; mov %eax,%fs")
  SEGMENT S1, 0, 0, 0x93, 4
  PASS("limit 0 leaves one byte", "mov $S1,%eax; mov %eax,%fs; mov %fs:0,%bl")
  FAULT("limit 0: second byte", GP, 0, "mov %fs:1,%bl", "mov $S1,%eax; mov %eax,%fs")
  SEGMENT_AT S1, scratch, 15, 0x93, 4
  FAULT("LODSL over the limit leaves ESI", GP, 0, "lodsl %fs:(%esi),%eax", "mov $S1,%eax; mov %eax,%fs; mov $14,%esi")
  CHECK(exc_esi, $14)
  CASE "base is added"
  movl $0x8899, scratch + 12
  mov %fs:12, %ebx
  mov $S1, %eax
  mov %eax, %fs
  mov %fs:12, %ebx
  CHECK(%ebx, $0x8899)
  CASE "REP MOVSB stops at the limit"
  TRY
  mov $S1, %eax
  mov %eax, %es
  mov $scratch + 32, %esi
  mov $8, %edi
  mov $20, %ecx
98: rep movsb
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_eip, $98b)
  CHECK(exc_ecx, $12)
  CHECK(exc_edi, $16)
  SEGMENT_AT S1, scratch, 0xfffff, 0x93, 0xc
  CASE "linear address wraps at 4 GiB"
  TRY
  mov $S1, %eax
  mov %eax, %fs
  mov $scratch, %ebx
  neg %ebx
  add $scratch2, %ebx
  sub $0, %ebx
  movl $0x31337, scratch2
  mov %fs:(%ebx), %ecx
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%ecx, $0x31337)
  ret

expand_down:                      // §5.3: valid are limit+1 .. FFFFH or FFFFFFFFH (B)
  SEGMENT S1, 0, 0xfff, 0x97, 4
  FAULT("expand-down: at the limit", GP, 0, "mov %fs:0xfff,%bl", "mov $S1,%eax; mov %eax,%fs")
  PASS("expand-down: above the limit", "mov $S1,%eax; mov %eax,%fs; mov %fs:0x1000,%bl")
  FAULT("expand-down: dword that begins below", GP, 0, "mov %fs:0xffe,%ebx", "mov $S1,%eax; mov %eax,%fs")
  PASS("expand-down with B: high addresses", "mov $S1,%eax; mov %eax,%fs; mov %fs:0x200000,%ebx")
  FAULT("expand-down with B: over the end", GP, 0, "mov %fs:-2,%ebx", "mov $S1,%eax; mov %eax,%fs")
  SEGMENT S1, 0, 0xfff, 0x97, 0
  PASS("expand-down without B: last byte of 64 KiB", "mov $S1,%eax; mov %eax,%fs; mov %fs:0xffff,%bl")
  FAULT("expand-down without B: beyond 64 KiB", GP, 0, "mov %fs:0x10000,%bl", "mov $S1,%eax; mov %eax,%fs")
  FAULT("expand-down without B: across 64 KiB", GP, 0, "mov %fs:0xfffe,%ebx", "mov $S1,%eax; mov %eax,%fs")
  SEGMENT S1, 0, 0, 0x97, 0xc
  FAULT("expand-down by pages: first page is out", GP, 0, "mov %fs:0xfff,%bl", "mov $S1,%eax; mov %eax,%fs")
  PASS("expand-down by pages: second is in", "mov $S1,%eax; mov %eax,%fs; mov %fs:0x1000,%bl")
  SEGMENT S1, 0, 0xfffff, 0x97, 0xc
  FAULT("expand-down with the whole limit is empty", GP, 0, "mov %fs:0x100000,%bl", "mov $S1,%eax; mov %eax,%fs")
  ret

types:                            // which types go into which register: an accessible one gives no fault
  .irp t, 0x90, 0x92, 0x94, 0x96, 0x9a, 0x9e
  SEGMENT S1, 0, 0xfffff, \t, 0xc
  PASSm 100, "type \t into DS", "mov $S1,%eax; mov %eax,%fs"
  .endr
  .irp t, 0x98, 0x9c, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8b, 0x8c, 0x8e, 0x8f
  SEGMENT S1, 0, 0xfffff, \t, 0xc
  LOADFAULT "type \t into DS", fs, S1, GP, S1
  .endr
  .irp t, 0x90, 0x94, 0x98, 0x9a, 0x9c, 0x9e, 0x82, 0x89, 0x8c
  SEGMENT S1, 0, 0xfffff, \t, 0xc
  LOADFAULT "type \t into SS", ss, S1, GP, S1
  .endr
  .irp t, 0x90, 0x92, 0x94, 0x96, 0x82, 0x83, 0x86, 0x87, 0x88, 0x8a, 0x8b, 0x8d, 0x8e, 0x8f
  SEGMENT S1, 0, 0xfffff, \t, 0xc
  FAULTm 100, "far jump to type \t", GP, S1, "ljmp $S1,$0"
  .endr
  ret

accessed:
  .macro ACCESSED name, acc, want, insn
  CASE "\name"
  SEGMENT S1, 0, 0xfffff, \acc, 0xc
  TRY
  \insn
  ENDTRY
  movzbl gdt+S1+5, %eax
  CHECKm 101, %eax, $\want
  .endm
  ACCESSED "load of DS sets the accessed bit", 0x92, 0x93, "mov $S1,%eax; mov %eax,%fs"
  ACCESSED "load of SS sets the accessed bit", 0x92, 0x93, "mov $S1,%eax; mov %eax,%ss"
  ACCESSED "load of CS sets the accessed bit", 0x9a, 0x9b, "ljmp $S1,$1f; 1:"
  ACCESSED "load that faults does not", 0x92, 0x92, "mov $S1+3,%eax; mov %eax,%fs"
  ACCESSED "LAR, VERR and LSL do not", 0x92, 0x92, "mov $S1,%eax; lar %eax,%ebx; lsl %eax,%ebx; verr %ax"
  ACCESSED "read-only data", 0x90, 0x91, "mov $S1,%eax; mov %eax,%fs"
  ACCESSED "not present stays as it is", 0x12, 0x12, "mov $S1,%eax; mov %eax,%fs"
  ljmp $CODE0, $1f
1: ret

stack_loads:
  LOADFAULT "TSS into SS", ss, TSS0, GP, TSS0
  LOADFAULT "beyond the GDT into SS", ss, OUTSIDE, GP, OUTSIDE
  CASE "POP SS is as MOV SS"
  TRY
  push $OUTSIDE
98: pop %ss
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_err, $OUTSIDE)
  CHECK(exc_eip, $98b)
  CASE "POP DS that faults leaves ESP"
  TRY
  push $OUTSIDE
  mov %esp, %ebx
  pop %ds
  ENDTRY
  mov exc_kesp, %eax              // no change of ring: the frame is right below the operand
  add $12, %eax
  CHECK(%eax, exc_ebx)
  SEGMENT_AT S1, smallstack, 0xff, 0xf3, 4
  CASE "stack limit: PUSH below is #SS(0)"
  TRY
  TO_RING3
  mov $S1 + 3, %eax
  mov %eax, %ss
  mov $2, %esp
98: push %eax
  ENDTRY
  CHECK(exc_vec, $SS)
  CHECK(exc_err, $0)
  CHECK(exc_eip, $98b)
  CHECK(exc_esp3, $2)
  CASE "stack limit: POP over it is #SS(0)"
  TRY
  TO_RING3
  mov $S1 + 3, %eax
  mov %eax, %ss
  mov $0xfe, %esp
98: pop %ebx
  ENDTRY
  CHECK(exc_vec, $SS)
  CHECK(exc_eip, $98b)
  CASE "access by EBP is #SS(0), by EBP with DS is #GP(0)"
  TRY
  TO_RING3
  mov $S1 + 3, %eax
  mov %eax, %ss
  mov $0x100, %ebp
  mov (%ebp), %al
  ENDTRY
  CHECK(exc_vec, $SS)
  TRY
  TO_RING3
  mov $S1 + 3, %eax
  mov %eax, %ds
  mov $0x100, %ebp
  mov %ds:(%ebp), %al
  ENDTRY
  CHECK(exc_vec, $GP)
  CASE "SS override is #SS(0)"
  TRY
  TO_RING3
  mov $S1 + 3, %eax
  mov %eax, %ss
  mov $0x100, %ebx
  mov %ss:(%ebx), %al
  ENDTRY
  CHECK(exc_vec, $SS)
  CASE "CALL without room for the return address leaves EIP and ESP"
  TRY
  TO_RING3
  mov $S1 + 3, %eax
  mov %eax, %ss
  mov $3, %esp
98: call 1f
1: nop
  ENDTRY
  CHECK(exc_vec, $SS)
  CHECK(exc_eip, $98b)
  CHECK(exc_esp3, $3)
  ret

far_pointers:                     // LDS, LSS...
  movl $0x12345678, far
  movw $OUTSIDE, far + 4
  FAULT("LDS of a bad selector", GP, OUTSIDE, "lds far,%ebx")
  FAULT("LSS of a null selector", GP, 0, "lss far,%ebx", "movw $0,far+4")
  FAULT("LFS of a data segment not present", NP, S2, "lfs far,%ebx", "movw $S2,far+4; movl $0x1300,gdt+S2+4")
  CASE "LGS loads both"
  movw $DATA3, far + 4
  lgs far, %ebx
  CHECK(%ebx, $0x12345678)
  mov %gs, %eax
  CHECK(%eax, $DATA3)
  CASE "LDS that faults leaves the register"
  movw $OUTSIDE, far + 4
  TRY
  mov $0x77, %ebx
  lds far, %ebx
  ENDTRY
  CHECK(exc_ebx, $0x77)
  mov $DATA0, %eax
  mov %eax, %gs
  ret

// LAR, LSL, VERR, VERW give ZF, and change the destination only then.
.macro QUERY name, insn, sel, zf, value=0x5a5a5a5a
  CASE "\name"
  mov $\sel, %eax
  mov $0x5a5a5a5a, %ebx
  \insn
  setz %cl
  movzbl %cl, %ecx
  CHECKm 102, %ecx, $\zf
  CHECKm 103, %ebx, $\value
.endm
access_rights:
  QUERY "LAR of data", "lar %eax,%ebx", DATA0, 1, 0x00cf9300
  QUERY "LAR of 16 bits", "lar %ax,%bx", DATA0, 1, 0x5a5a9300
  QUERY "LAR of a null selector", "lar %eax,%ebx", 0, 0
  QUERY "LAR beyond the GDT", "lar %eax,%ebx", OUTSIDE, 0
  QUERY "LAR with RPL above DPL", "lar %eax,%ebx", DATA0+3, 0
  QUERY "LAR of a busy TSS", "lar %eax,%ebx", TSS0, 1, 0x00008b00
  SEGMENT S1, 0, 0, 0x8c, 0
  QUERY "LAR of a call gate", "lar %eax,%ebx", S1, 1, 0x00008c00
  SEGMENT S1, 0, 0, 0x85, 0
  QUERY "LAR of a task gate", "lar %eax,%ebx", S1, 1, 0x00008500
  QUERY "LSL of a task gate", "lsl %eax,%ebx", S1, 0
  .irp t, 0x80, 0x86, 0x87, 0x88, 0x8a, 0x8d, 0x8e, 0x8f
  SEGMENT S1, 0, 0, \t, 0
  QUERY "LAR of type \t", "lar %eax,%ebx", S1, 0
  .endr
  .irp t, 0x84, 0x8c
  SEGMENT S1, 0, 0, \t, 0
  QUERY "LSL of type \t", "lsl %eax,%ebx", S1, 0
  .endr
  SEGMENT S1, 0, 0x12345, 0x13, 4
  QUERY "LAR of data not present", "lar %eax,%ebx", S1, 1, 0x00411300
  SEGMENT S1, 0, 0x12345, 0x93, 4
  QUERY "LSL of bytes", "lsl %eax,%ebx", S1, 1, 0x12345
  SEGMENT S1, 0, 0x12345, 0x93, 0xc
  QUERY "LSL of pages", "lsl %eax,%ebx", S1, 1, 0x12345fff
  QUERY "LSL of 16 bits", "lsl %ax,%bx", S1, 1, 0x5a5a5fff
  QUERY "LSL of a null selector", "lsl %eax,%ebx", 0, 0
  QUERY "LSL of the TSS", "lsl %eax,%ebx", TSS0, 1, 8328
  QUERY "VERR of data", "verr %ax", DATA0, 1
  QUERY "VERW of data", "verw %ax", DATA0, 1
  QUERY "VERR of code", "verr %ax", CODE0, 1
  QUERY "VERW of code", "verw %ax", CODE0, 0
  QUERY "VERR of the TSS", "verr %ax", TSS0, 0
  QUERY "VERR of a null selector", "verr %ax", 0, 0
  QUERY "VERR beyond the GDT", "verr %ax", OUTSIDE, 0
  QUERY "VERR with RPL above DPL", "verr %ax", DATA0+1, 0
  SEGMENT S1, 0, 0xfffff, 0x91, 0xc
  QUERY "VERW of read-only data", "verw %ax", S1, 0
  SEGMENT S1, 0, 0xfffff, 0x99, 0xc
  QUERY "VERR of execute-only code", "verr %ax", S1, 0
  SEGMENT S1, 0, 0xfffff, 0x9f, 0xc
  QUERY "VERR of conforming code with RPL 3", "verr %ax", S1+3, 1
  CASE "ring 3: LAR and VERR see only what ring 3 may use"
  TRY
  TO_RING3
  xor %ebx, %ebx
  mov $DATA0, %eax
  lar %eax, %ecx
  setz %bl
  mov $DATA3, %eax
  verw %ax
  setz %bh
  int $EXIT
  ENDTRY
  CHECK(exc_ebx, $0x100)
  ret

arpl_:
  CASE "ARPL raises the RPL"
  mov $DATA0, %eax
  mov $3, %ebx
  arpl %bx, %ax
  setz %cl
  movzbl %cl, %ecx
  CHECK(%ecx, $1)
  CHECK(%eax, $(DATA0+3))
  CASE "ARPL leaves a higher one"
  mov $DATA0+2, %eax
  mov $1, %ebx
  arpl %bx, %ax
  setz %cl
  movzbl %cl, %ecx
  CHECK(%ecx, $0)
  CHECK(%eax, $(DATA0+2))
  ret

ldt_and_tr:
  SEGMENT_AT LDTS, ldt, 15, 0x82, 0
  FAULT("LLDT of data", GP, DATA0, "lldt %ax", "mov $DATA0,%eax")
  FAULT("LLDT beyond the GDT", GP, OUTSIDE, "lldt %ax", "mov $OUTSIDE,%eax")
  FAULT("LLDT of a selector of the LDT", GP, 0x14, "lldt %ax", "mov $0x14,%eax")
  movb $2, gdt+LDTS+5
  FAULT("LLDT not present", NP, LDTS, "lldt %ax", "mov $LDTS,%eax")
  movb $0x82, gdt+LDTS+5
  movl $0x0000ffff, ldt+8
  movl $0x00cf9300, ldt+12
  CASE "LLDT and a segment of the LDT"
  TRY
  mov $LDTS, %eax
  lldt %ax
  mov $0xc, %eax
  mov %eax, %fs
  mov %fs:scratch, %ebx
  ENDTRY
  CHECK(exc_vec, $NONE)
  sldt %eax
  CHECK(%eax, $LDTS)
  FAULT("beyond the LDT's limit", GP, 0x14, "mov %eax,%fs", "mov $0x17,%eax")
  PASS("LLDT of null", "xor %eax,%eax; lldt %ax")
  FAULT("segment of the LDT after that", GP, 0xc, "mov %eax,%fs", "mov $0xc,%eax")
  FAULT("LTR of the busy TSS", GP, TSS0, "ltr %ax", "mov $TSS0,%eax")
  FAULT("LTR of null", GP, 0, "ltr %ax", "xor %eax,%eax")
  FAULT("LTR of data", GP, DATA0, "ltr %ax", "mov $DATA0,%eax")
  FAULT("LTR of a selector of the LDT", GP, 0xc, "ltr %ax", "mov $0xc,%eax")
  SEGMENT_AT TSS2, tss, 104, 0x09, 0
  FAULT("LTR not present", NP, TSS2, "ltr %ax", "mov $TSS2,%eax")
  CASE "LTR marks the TSS busy"
  SEGMENT_AT TSS2, tss, 104, 0x89, 0
  TRY
  mov $TSS2, %eax
  ltr %ax
  ENDTRY
  CHECK(exc_vec, $NONE)
  movzbl gdt+TSS2+5, %eax
  CHECK(%eax, $0x8b)
  str %eax
  CHECK(%eax, $TSS2)
  movb $0x89, gdt+TSS0+5
  mov $TSS0, %eax
  ltr %ax
  SEGMENT S1, 0, 0xfffff, 0x93, 0xc
  movw $S1 + 6, gdtr2
  movl $gdt, gdtr2 + 2
  FAULT("a descriptor must be within the limit to its last byte", GP, S1, "mov %eax,%fs", "lgdt gdtr2; mov $S1,%eax")
  movw $S1 + 7, gdtr2
  PASS("and then it is good", "lgdt gdtr2; mov $S1,%eax; mov %eax,%fs")
  ret

small_stack:                      // a stack segment without B uses SP
  lgdt boot_gdtr
  SEGMENT_AT S1, smallstack, 0xffff, 0x93, 0
  CASE "16-bit stack wraps at 64 KiB"
  TRY
  mov %esp, %ebp
  mov $S1, %eax
  mov %eax, %ss
  mov $0x12340000, %esp
  push $0x5566
  mov %esp, %ebx
  mov $DATA0, %eax
  mov %eax, %ss
  mov %ebp, %esp
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%ebx, $0x1234fffc)
  CHECK(smallstack + 0xfffc, $0x5566)
  CASE "16-bit stack: POP, CALL, ENTER use SP only"
  TRY
  mov %esp, %edx
  mov $S1, %eax
  mov %eax, %ss
  mov $0x77770100, %esp
  mov $0x88880000, %ebp
  enter $16, $0
  mov %ebp, %ebx
  mov %esp, %ecx
  leave
  mov %esp, %esi
  mov $DATA0, %eax
  mov %eax, %ss
  mov %edx, %esp
  ENDTRY
  movzwl %bx, %ebx
  CHECK(%ebx, $0xfc)
  CHECK(%ecx, $0x777700ec)
  CHECK(%esi, $0x77770100)
  ret

  .section .bss
  .align 16
scratch: .skip 256
scratch2: .skip 16
far: .skip 8
gdtr2: .skip 8
ldt: .skip 16
smallstack: .skip 0x10000
