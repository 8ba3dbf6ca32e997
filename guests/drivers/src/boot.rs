//! From a PVH loader's 32-bit protected mode to Rust in 64-bit mode, with the first 4 GiB mapped
//! where they are. There is no interrupt table: an exception ends the machine.

core::arch::global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_entry

    .section .bss.boot, "aw", @nobits
    .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pds:    .skip 4 * 4096
    .skip 256 * 1024
stack_top:

    .section .rodata.boot, "a"
    .align 8
gdt:    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdtr:   .word 23
    .long gdt

    .section .boot.text, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    movl $stack_top, %esp
    # 2048 entries of 2 MiB: present, writable, large.
    movl $pds, %edi
    movl $0x83, %eax
    movl $2048, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    movl $pdpt, %edi
    movl $pds + 3, %eax
    movl $4, %ecx
2:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 2b
    movl $pdpt + 3, %eax
    movl %eax, pml4
    # CR4.PAE, CR3, EFER.LME, CR0.PG and WP (SDM vol. 3A, 9.8.5).
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80010000, %eax
    movl %eax, %cr0
    lgdt gdtr
    ljmp $8, $3f
    .code64
3:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $stack_top, %esp
    call guest_main
    "#,
    options(att_syntax)
);
