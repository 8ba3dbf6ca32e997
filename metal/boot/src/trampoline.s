// Start of an application processor: real mode at a page of the first MiB, whose segment is in CS.
// Nothing here is at its link address; the page's own address is worked out. Parameters at offset 4032.

    .section .rodata
    .balign 16
    .globl ap_trampoline
ap_trampoline:
    .code16
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movzwl %ax, %ebx
    shl $4, %ebx                    // where we are
    lea ap_gdt - ap_trampoline(%ebx), %eax
    mov %eax, ap_gdtr - ap_trampoline + 2
    lea ap_protected - ap_trampoline(%ebx), %eax
    mov %eax, ap_far - ap_trampoline
    lgdtl ap_gdtr - ap_trampoline
    mov $0x23, %eax                 // PE, MP, NE: caches on as well
    mov %eax, %cr0
    ljmpl *(ap_far - ap_trampoline)
    .code32
ap_protected:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %ss
    lea ap_long - ap_trampoline(%ebx), %eax     // while the page can be written
    mov %eax, ap_far - ap_trampoline(%ebx)
    movw $0x08, ap_far - ap_trampoline + 4(%ebx)
    mov %cr4, %eax
    or $0x620, %eax
    mov %eax, %cr4
    mov 4032(%ebx), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010023, %eax
    mov %eax, %cr0
    ljmpl *ap_far - ap_trampoline(%ebx)
    .code64
ap_long:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov 4032+8(%rbx), %rsp
    mov 4032+16(%rbx), %rdi
    mov 4032+24(%rbx), %rax
    xor %ebp, %ebp
    call *%rax
1:  cli
    hlt
    jmp 1b
    .balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // 08: 64-bit code
    .quad 0x00cf9b000000ffff        // 10: 32-bit code
    .quad 0x00cf93000000ffff        // 18: data
ap_gdtr:
    .short 31
    .long 0
ap_far:
    .long 0
    .short 0x10
    .globl ap_trampoline_end
ap_trampoline_end:
    .text
