// Self-modifying code: what is stored is what runs next. SDM vol. 3A §8.1.3, §11.6; APM vol. 2 §7.6.1.
// Where the manual asks for more than the store (another linear address), the guest serializes with CPUID.
#include "guest.inc"
GUEST "smc"
.set S1, FREE
.set CODE16B, FREE + 8
.set VA, 0x10000000

.macro SERIALIZE
  pusha
  xor %eax, %eax
  cpuid
  popa
.endm

  .code32
guest_main:
  movl $0x600, %eax
  mov %eax, %cr4
  call next_instruction
  call writers
  call versions
  call neighbours
  call modes
  call stepping
  call ring3
  call paged
  FINISH

next_instruction:
  CASE "immediate of the next instruction"
  movb $5, 1f+1
1: mov $3, %bl
  movzbl %bl, %ebx
  CHECK(%ebx, $5)
  CASE "opcode of the next instruction"
  xor %ebx, %ebx
  movb $0x43, 1f                  // INC EBX
1: nop
  CHECK(%ebx, $1)
  CASE "instructions further on in the same block"
  xor %ebx, %ebx
  movl $0x43434343, 1f
  nop
  nop
  nop
1: .long 0x90909090
  CHECK(%ebx, $4)
  CASE "a store that makes two instructions of one"
  xor %ebx, %ebx
  movl $0x0143b390, 1f            // NOP; MOV BL,43H; ADD ...
  movb $0x90, 1f+3
1: mov $0x90909090, %eax          // becomes NOP; MOV BL,43H; NOP; and its last byte, a NOP
  CHECK(%ebx, $0x43)
  CASE "REP STOSB over the code behind it"
  xor %ebx, %ebx
  mov $1f, %edi
  mov $6, %ecx
  mov $0x43, %al
  rep stosb
1: nop
  nop
  nop
  nop
  nop
  nop
  CHECK(%ebx, $6)
  CASE "REP MOVSB over the code behind it"
  xor %ebx, %ebx
  mov $2f, %esi
  mov $1f, %edi
  mov $5, %ecx
  rep movsb
1: mov $0, %ebx
  CHECK(%ebx, $0x1234)
  jmp 3f
2: mov $0x1234, %ebx
3: CASE "a loop that changes its own constant"
  xor %ebx, %ebx
  mov $1000, %ecx
1: .byte 0x81, 0xc3               // add $imm32,%ebx
2: .long 0
  incl 2b
  loop 1b
  CHECK(%ebx, $(999*1000/2))
  CASE "the target of a jump"
  movb $0x66, 2f+1
  jmp 2f
  nop
2: mov $0x11, %bl
  movzbl %bl, %ebx
  CHECK(%ebx, $0x66)
  CASE "the distance of a jump"
  xor %ebx, %ebx
  movb $1, 1f+1
1: jmp 2f
2: inc %ebx                       // skipped: one byte
  nop
  CHECK(%ebx, $0)
  CASE "the place a CALL returns to"
  call 2f
1: mov $1, %ebx
  jmp 3f
2: movl $0x77, 1b+1
  ret
3: CHECK(%ebx, $0x77)
  CASE "an instruction that modifies itself runs as it was"
  xor %ebx, %ebx
1: movb $0x90, 1b
  movb $0xc6, 1b                  // as before
  CHECK(%ebx, $0)
  CASE "a prefix put in front"
  mov $0x12345678, %ebx
  movb $0x66, 1f
1: nop
  .byte 0xbb, 0, 0                // mov $0,%bx, if the prefix is there
  .byte 0x90, 0x90                // or the upper half of mov $0x90900000,%ebx
  CHECK(%ebx, $0x12340000)
  ret

// Every way to write memory: each puts MOV EBX,imm32 with another immediate at `slot` and runs it.
.macro WRITER name, want, insn
  CASE "\name"
  movl $0, slot + 1
  call slot
  \insn
  call slot
  CHECKm 101, %ebx, $(\want)
.endm
writers:
  WRITER "MOV of a byte", 0x11, "movb $0x11,slot+1"
  WRITER "MOV of a word", 0x2222, "movw $0x2222,slot+1"
  WRITER "XCHG", 0x3333, "mov $0x3333,%eax; xchg %eax,slot+1"
  WRITER "LOCK CMPXCHG", 0x4444, "xor %eax,%eax; mov $0x4444,%edx; lock cmpxchg %edx,slot+1"
  WRITER "CMPXCHG8B", 0x5555, "xor %eax,%eax; mov slot+5,%edx; mov %edx,%ecx; mov $0x5555,%ebx; lock cmpxchg8b slot+1"
  WRITER "XADD", 0x6666, "mov $0x6666,%eax; xadd %eax,slot+1"
  WRITER "BTS", 0x80, "btsl $7,slot+1"
  WRITER "INC", 1, "incl slot+1"
  WRITER "OR", 0x100, "orl $0x100,slot+1"
  WRITER "SHLD", 0x1234, "mov $0x12340000,%eax; shld $16,%eax,slot+1"
  WRITER "SETcc", 1, "cmp %eax,%eax; sete slot+1"
  WRITER "STOSL", 0x7777, "mov $slot+1,%edi; mov $0x7777,%eax; stosl"
  WRITER "MOVSL", 0x8888, "movl $0x8888,scratch; mov $scratch,%esi; mov $slot+1,%edi; movsl"
  WRITER "PUSH", 0x9999, "mov %esp,%ebp; mov $slot+5,%esp; push $0x9999; mov %ebp,%esp"
  WRITER "POP to memory", 0xaaaa, "push $0xaaaa; popl slot+1"
  WRITER "x87 FISTP", 0xbbbb, "fninit; movl $0xbbbb,scratch; fildl scratch; fistpl slot+1"
  WRITER "x87 FNSTCW", 0x37f, "fninit; fnstcw slot+1"
  WRITER "SSE MOVSS", 0xcccc, "movl $0xcccc,scratch; movss scratch,%xmm0; movss %xmm0,slot+1"
  WRITER "MOVNTI", 0xdddd, "mov $0xdddd,%eax; movnti %eax,slot+1; sfence"
  WRITER "MOV of a segment register", DATA0, "movw %ds,slot+1"
  WRITER "SMSW", 0x33, "smsw scratch; mov scratch,%al; movb $0x33,scratch; movb scratch,%al; movb %al,slot+1"
  WRITER "CALL's push", 0, "mov %esp,%ebp; mov $slot+5,%esp; call 7f; 7: mov %ebp,%esp; movl $0,slot+1"
  CASE "the frame of an interrupt" // its EFLAGS, CS, EIP go over the slot: CS is the immediate
  movl $0, slot + 1
  call slot
  GATE 0x41, leave_frame
  mov %esp, %ebp
  mov $slot + 9, %esp
  movl $0x909090c3, slot + 9
  int $0x41
  movb $0xbb, slot
  movl $0xc3, slot + 5
  mov %ebp, %esp
  call slot
  CHECK(%ebx, $CODE0)
  CASE "the accessed bit of a descriptor in code"
  movl $0x00cf9200, slot + 1      // upper half of a data descriptor with A clear
  sub $3, %esp
  add $3, %esp
  movw $0xffff, gdt_in_code + FREE
  movl $0, gdt_in_code + FREE + 2
  mov $gdt, %esi
  mov $gdt_in_code, %edi
  mov $16, %ecx
  rep movsl
  movl $0x0000ffff, gdt_in_code + 0x38
  movl $0xc300bb00 + 0, scratch
  lgdt gdtr_in_code
  mov $0x38, %eax
  movb $0xb3, gdt_in_code + 0x38 + 4          // bytes 4, 5 are MOV BL,92H, byte 6 RET
  movb $0x92, gdt_in_code + 0x38 + 5
  movb $0xc3, gdt_in_code + 0x38 + 6
  movb $0, gdt_in_code + 0x38 + 7
  xor %ebx, %ebx
  call gdt_in_code + 0x38 + 4
  CHECK(%ebx, $0x92)
  mov %eax, %fs
  call gdt_in_code + 0x38 + 4
  lgdt boot_gdtr
  CHECK(%ebx, $0x93)
  mov $DATA0, %eax
  mov %eax, %fs
  ret
leave_frame:
  iret
  .skip 16, 0x90
slot:
  mov $0, %ebx
  ret
  .skip 16, 0x90
  .align 8
gdt_in_code: .skip 256
gdtr_in_code: .word 255
  .long gdt_in_code

versions:
  CASE "a buffer that gets new code a thousand times"
  xor %esi, %esi
  xor %edx, %edx
1: mov $buffer, %edi
  movb $0xb8, (%edi)
  mov %esi, 1(%edi)
  movb $0xc3, 5(%edi)
  call *%edi
  cmp %eax, %esi
  je 2f
  inc %edx
2: inc %esi
  cmp $1000, %esi
  jb 1b
  CHECK(%edx, $0)
  CASE "code that is moved by three bytes each time"
  xor %edx, %edx
  mov $100, %esi
1: lea (%esi,%esi,2), %edi
  add $buffer, %edi
  movb $0xb8, (%edi)
  mov %esi, 1(%edi)
  movb $0xc3, 5(%edi)
  call *%edi
  cmp %eax, %esi
  je 2f
  inc %edx
2: dec %esi
  jnz 1b
  CHECK(%edx, $0)
  CASE "an instruction across a page, its second half modified"
  xor %edx, %edx
  mov $200, %esi
  movb $0xb8, page_end - 2
  movb $0xc3, page_end + 3
1: mov %esi, %eax
  mov %ax, page_end
  mov $page_end - 2, %edi
  movb $0x44, page_end - 1
  call *%edi
  shr $8, %eax
  cmp %eax, %esi
  je 2f
  inc %edx
2: dec %esi
  jnz 1b
  CHECK(%edx, $0)
  CASE "and its first half"
  movl $0, page_end - 1
  movb $0xc3, page_end + 3
  mov $page_end - 2, %edi
  call *%edi
  movb $0xbb, page_end - 2
  xor %ebx, %ebx
  dec %ebx
  call *%edi
  CHECK(%ebx, $0)
  ret

neighbours:
  CASE "stores beside code on the same page, a hundred thousand times"
  movl $0x9090c340, buffer        // INC EAX; RET
  xor %eax, %eax
  mov $100000, %ecx
1: mov %ecx, buffer + 64
  call buffer
  loop 1b
  CHECK(%eax, $100000)
  CHECK(buffer + 64, $1)
  ret

modes:                            // the same bytes mean other things in other segments
  CASE "one piece of memory as 32-bit and as 16-bit code"
  SEGMENT_AT CODE16B, both_ways, 0xffff, 0x9b, 0
  mov $3, %esi
  xor %edx, %edx
1: call both_near
  cmp $0x43434343, %ebx
  je 2f
  inc %edx
2: xor %ebx, %ebx
  lcall $CODE16B, $(both_far - both_ways)
  cmp $0x4345, %ebx
  je 3f
  inc %edx
3: dec %esi
  jnz 1b
  CHECK(%edx, $0)
  ret
both_near:
  call both_ways
  ret
both_ways:
  mov $0x43434343, %ebx           // in 16 bits: MOV BX,4343H; INC BX; INC BX
  ret
both_far:                         // 16-bit: runs the bytes above by a near call, and goes back far
  .byte 0xe8                      // call rel16
  .word both_ways - (. + 2)
  .byte 0x66, 0xcb                // lretl

stepping:
  CASE "single step over a store to the next instruction"
  TRY
  pushf
  orl $0x100, (%esp)
  movb $0, 1f + 1
  popf
  movb $0x29, 1f + 1
1: mov $0, %bl
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $1b)
  movzbl 1b + 1, %eax
  CHECK(%eax, $0x29)
  ret

ring3:
  CASE "ring 3 modifies its next instruction"
  TRY
  TO_RING3
  movb $0x39, 1f + 1
1: mov $0, %bl
  int $EXIT
  ENDTRY
  movzbl exc_ebx, %eax
  CHECK(%eax, $0x39)
  ret

paged:                            // with aliases: one frame at its own address and at VA
  mov $pd, %edi
  mov $0x87, %eax
  mov $16, %ecx
1: stosl
  add $0x400000, %eax
  loop 1b
  movl $pt + 7, pd + 4*(VA >> 22)
  mov $buffer, %eax
  or $7, %eax
  mov %eax, pt
  mov $buffer2, %eax
  or $7, %eax
  mov %eax, pt + 4
  mov %cr4, %eax
  or $0x10, %eax
  mov %eax, %cr4
  mov $pd, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  jmp 1f
1: CASE "modified at one address, run at another"
  movl $0x000001b8, buffer        // MOV EAX,1; RET
  movl $0x0000c300, buffer + 4
  mov $VA, %esi
  call *%esi
  movb $2, buffer + 1
  SERIALIZE
  call *%esi
  CHECK(%eax, $2)
  CASE "modified at the other, run at the one"
  movb $3, VA + 1
  SERIALIZE
  call buffer
  CHECK(%eax, $3)
  CASE "many times both ways"
  xor %edx, %edx
  mov $500, %edi
1: mov %edi, VA + 1
  SERIALIZE
  call buffer
  cmp %eax, %edi
  je 2f
  inc %edx
2: dec %edi
  mov %edi, buffer + 1
  SERIALIZE
  call *%esi
  cmp %eax, %edi
  je 3f
  inc %edx
3: test %edi, %edi
  jnz 1b
  CHECK(%edx, $0)
  CASE "another frame put behind an address, and INVLPG"
  movl $0x000007b8, buffer
  movl $0x0000c300, buffer + 4
  movl $0x000008b8, buffer2
  movl $0x0000c300, buffer2 + 4
  call *%esi
  mov %eax, %ebx
  mov pt + 4, %eax
  mov %eax, pt
  invlpg VA
  call *%esi
  CHECK(%ebx, $7)
  CHECK(%eax, $8)
  CASE "and the old one back"
  mov $buffer, %eax
  or $7, %eax
  mov %eax, pt
  invlpg VA
  call *%esi
  CHECK(%eax, $7)
  CASE "another address space with the same addresses"
  mov $pd, %esi
  mov $pd2, %edi
  mov $1024, %ecx
  rep movsl
  movl $pt2 + 7, pd2 + 4*(VA >> 22)
  mov $buffer2, %eax
  or $7, %eax
  mov %eax, pt2
  mov $VA, %esi
  xor %edx, %edx
  mov $50, %ecx
1: mov $pd2, %eax
  mov %eax, %cr3
  call *%esi
  cmp $8, %eax
  je 2f
  inc %edx
2: mov $pd, %eax
  mov %eax, %cr3
  call *%esi
  cmp $7, %eax
  je 3f
  inc %edx
3: loop 1b
  CHECK(%edx, $0)
  CASE "a read-only page of code that another address writes"
  mov $buffer, %eax
  or $5, %eax
  mov %eax, pt
  invlpg VA
  movb $9, buffer + 1
  SERIALIZE
  call *%esi
  CHECK(%eax, $9)
  ret

  .section .bss
  .align 4096
pd: .skip 4096
pt: .skip 4096
pd2: .skip 4096
pt2: .skip 4096
buffer: .skip 4096
page_end: .skip 4096
buffer2: .skip 4096
scratch: .skip 64
