// Boot headers, and the way from 32-bit protected mode without paging to long mode.
// Multiboot2 2.0 §3.1, §3.3; Xen docs/misc/pvh.pandoc.

    .section .multiboot2, "a"
    .balign 8
mb2_header:
    .long 0xe85250d6, 0, mb2_header_end - mb2_header
    .long 0x100000000 - (0xe85250d6 + (mb2_header_end - mb2_header))
    .short 3, 0                     // entry address
    .long 12, mb2_entry
    .balign 8
    .short 6, 0                     // modules on page boundaries
    .long 8
    .short 0, 0
    .long 8
mb2_header_end:

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                  // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .boot.text, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    mov $1, %edi
    jmp 1f
    .globl mb2_entry
mb2_entry:
    mov $2, %edi
    cmp $0x36d76289, %eax
    je 1f
    xor %edi, %edi
1:  cli
    cld
    mov %ebx, %esi
    mov $boot_stack_top, %esp
    // Identity map of the first 4 GiB by pages of 2 MiB, until there are better tables.
    mov $boot_pdpt + 3, %eax
    mov %eax, boot_pml4
    mov $boot_pds + 3, %eax
    mov $boot_pdpt, %ebx
    mov $4, %ecx
2:  mov %eax, (%ebx)
    add $0x1000, %eax
    add $8, %ebx
    loop 2b
    mov $boot_pds, %ebx
    mov $0x83, %eax
    mov $2048, %ecx
3:  mov %eax, (%ebx)
    add $0x200000, %eax
    add $8, %ebx
    loop 3b
    // Firmware leaves bits of CR4 set that must stay (MCE), so: or.
    mov %cr4, %eax
    or $0x620, %eax                 // PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax                 // LME, NXE
    wrmsr
    mov %cr0, %eax
    and $0x9ffffff3, %eax           // CD, NW, EM, TS off
    or $0x80010023, %eax            // PG, WP, NE, MP, PE
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $4f
    .code64
4:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_top, %esp
    mov %edi, %edi
    mov %esi, %esi
    xor %ebp, %ebp
    call kasane_main
5:  cli
    hlt
    jmp 5b

    .section .rodata
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdtr:
    .short 23
    .long boot_gdt
    .long 0

    .section .bss
    .balign 4096
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pds:
    .skip 4 * 4096
    // The page below the stack is taken out of the page tables: a guard.
    .globl boot_stack_guard
boot_stack_guard:
    .skip 4096
    .skip 256 * 1024
boot_stack_top:
    .text
