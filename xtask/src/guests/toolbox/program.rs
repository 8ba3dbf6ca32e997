//! A C program of more than ten thousand lines, made anew each time and always the same, that the
//! guest's compiler compiles: 64-bit and narrow integers, floating point, switches, structures,
//! bytes, recursion, matrices and linked lists, without undefined behaviour. It prints a checksum
//! for each function, so that a difference says where it is.

/// How many functions; each has some fifty lines.
const FUNCTIONS: u32 = 240;

const HEAD: &str = "\
/* Made by a program. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t u64;
typedef struct { uint32_t key; int16_t small; uint8_t flag : 3, rest : 5; double weight; u64 more[2]; } record;
typedef struct node { struct node *next; u64 value; } node;

static u64 mix(u64 h, u64 v)
{
\th = (h ^ v) * 0x9E3779B97F4A7C15u;
\treturn h ^ h >> 29;
}

static u64 bits(double d)
{
\tu64 v;
\tmemcpy(&v, &d, sizeof v);
\treturn v;
}
";

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Below `limit`; 0 when that is 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }
    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.below(words.len() as u64)).unwrap_or(0);
        words.get(at).copied().unwrap_or_default()
    }
}

struct Writer {
    text: String,
    random: Random,
    indent: usize,
}

/// The whole program.
pub(super) fn source() -> String {
    let mut writer = Writer { text: HEAD.to_owned(), random: Random(10_000), indent: 0 };
    for number in 0..FUNCTIONS {
        writer.function(number);
    }
    writer.main();
    writer.text
}

impl Writer {
    fn line(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if text.starts_with('}') {
            self.indent = self.indent.saturating_sub(1);
        }
        self.text.push_str(&"\t".repeat(self.indent));
        self.text.push_str(text);
        self.text.push('\n');
        if text.ends_with('{') {
            self.indent += 1;
        }
    }
    fn lines(&mut self, texts: &[&str]) {
        for text in texts {
            self.line(text);
        }
    }

    fn function(&mut self, number: u32) {
        self.line("");
        self.line(format!("static u64 f{number}(u64 seed)"));
        self.line("{");
        let any = self.random.next();
        self.line(format!("u64 a = seed + {number}, b = {any}ul, c = a ^ b, h = a;"));
        match number % 8 {
            0 => self.loops(),
            1 => self.switches(),
            2 => self.floats(),
            3 => self.structures(),
            4 => self.bytes(),
            5 => self.recursion(number),
            6 => self.matrices(),
            _ => self.lists(),
        }
        if number > 8 {
            let earlier = self.random.below(number.into());
            self.line("if (seed & 1)");
            self.line(format!("\th = mix(h, f{earlier}(seed >> 1));"));
        }
        self.line("return mix(mix(h, a), mix(b, c));");
        self.line("}");
    }

    /// An expression of unsigned 64-bit numbers over a, b, c.
    fn integer(&mut self, depth: u32) -> String {
        if depth == 0 {
            return match self.random.below(4) {
                0 => format!("{}ul", self.random.below(1000)),
                _ => self.random.one_of(&["a", "b", "c"]).to_owned(),
            };
        }
        let (left, right) = (self.integer(depth - 1), self.integer(depth - 1));
        let shift = self.random.below(63) + 1;
        match self.random.below(13) {
            0 => format!("({left} << {shift} | {right} >> {})", 64 - shift),
            1 => format!("({left} / ({right} | 1))"),
            2 => format!("({left} % ({right} | 3))"),
            3 => format!("({left} > {right} ? {left} - {right} : {right})"),
            4 => format!("(u64)((int64_t){left} >> {shift})"),
            5 => format!("(u64)((int32_t)(uint32_t){left} / (int32_t)(({right} & 0xffff) + 1))"),
            6 => format!("(u64)(uint8_t)({left} + {right})"),
            7 => format!("(u64)(int16_t)(uint16_t)({left} ^ {right})"),
            8 => format!("((uint32_t){left} * (u64)(uint32_t){right})"),
            9 => format!("(u64)((unsigned __int128){left} * {right} >> 64)"),
            10 => format!("({left} * {}ul)", self.random.below(100_000)),
            11 => format!("(u64)((int64_t){left} < (int64_t){right})"),
            _ => format!("({left} {} {right})", self.random.one_of(&["+", "-", "^", "&", "|"])),
        }
    }

    /// Statements that change one of a, b, c.
    fn changes(&mut self, count: u32) {
        for _ in 0..count {
            let variable = self.random.one_of(&["a", "b", "c"]);
            let operator = self.random.one_of(&["=", "+=", "^=", "-="]);
            let value = self.integer(2);
            self.line(format!("{variable} {operator} {value};"));
        }
    }

    fn loops(&mut self) {
        let (outer, inner) = (self.random.below(20) + 5, self.random.below(30) + 3);
        self.line(format!("for (u64 i = 0; i < {outer}; i++) {{"));
        self.changes(8);
        self.line(format!("for (int j = {inner}; j-- > 0;) {{"));
        self.line("c += i * (u64)j;");
        self.changes(7);
        self.lines(&["if (c % 11 == 4)", "\tcontinue;"]);
        self.changes(3);
        self.lines(&["if ((a ^ b) % 97 == 13)", "\tbreak;", "}"]);
        self.changes(4);
        self.lines(&["h = mix(h, a ^ c);", "}"]);
    }

    fn switches(&mut self) {
        let cases = self.random.below(12) + 14;
        let stride = self.random.one_of(&["1", "1", "3", "1000"]);
        self.line("int state = 0;");
        self.line("for (int step = 0; step < 300; step++) {");
        self.line("switch (state) {");
        for case in 0..cases {
            self.line(format!("case {case} * {stride}:"));
            self.changes(1);
            let next = self.random.below(cases);
            self.line(format!("state = (int)((a + {next}) % {cases}) * {stride};"));
            if self.random.below(5) > 0 {
                self.line("break;");
            } else {
                self.line("/* fall through */");
            }
        }
        self.lines(&["default:", "\tc += (u64)step;", "}"]);
        self.lines(&["h = mix(h, (u64)state + b);", "}"]);
    }

    fn floats(&mut self) {
        self.line("double x = (double)(uint32_t)a / 3.0, y = 1.5, z = -0.25;");
        self.line("float s = 1.0f, t = (float)(uint16_t)b;");
        let rounds = self.random.below(150) + 50;
        self.line(format!("for (int i = 1; i < {rounds}; i++) {{"));
        for _ in 0..14 {
            let to = self.random.one_of(&["x", "y", "z"]);
            let (left, right) =
                (self.random.one_of(&["x", "y", "z"]), self.random.one_of(&["x", "y", "s", "i"]));
            let constant = self.random.below(1000);
            let text = match self.random.below(7) {
                0 => format!("{to} = {left} * 0.{constant:03} + {right};"),
                1 => format!("{to} = {left} / ({right} * {right} + 1.{constant:03});"),
                2 => format!("if ({left} > {right}) {to} -= {constant}.5; else {to} += 0.125;"),
                3 => format!("s = s * 0.5f + (float){left}; t = t < s ? s : t * 0.75f;"),
                4 => format!("if ({left} > -1e9 && {left} < 1e9) a += (u64)(int64_t){left};"),
                5 => format!("{to} = (double)(int32_t)(uint32_t)c - {left};"),
                _ => format!("{to} = {left} - (double)(a >> 40) * 0.{constant:03};"),
            };
            self.line(text);
        }
        self.lines(&[
            "if (!(x < 1e30 && x > -1e30)) x = i;",
            "if (!(y < 1e30 && y > -1e30)) y = -i;",
        ]);
        self.lines(&[
            "if (!(z < 1e30 && z > -1e30)) z = 0.5;",
            "if (!(s < 1e18f && s > -1e18f)) s = t = 2.0f;",
        ]);
        self.lines(&["c ^= bits(x + z);", "h = mix(h, bits(y) ^ bits(s - t));", "}"]);
    }

    fn structures(&mut self) {
        let count = self.random.below(20) + 8;
        self.line(format!("record table[{count}], *best = table;"));
        self.line("memset(table, 0, sizeof table);");
        self.line(format!("for (uint32_t i = 0; i < {count}; i++) {{"));
        self.changes(3);
        self.lines(&[
            "table[i].key = (uint32_t)a;",
            "table[i].small = (int16_t)(uint16_t)b;",
            "table[i].flag = c & 7;",
        ]);
        self.lines(&[
            "table[i].rest = c >> 9 & 31;",
            "table[i].weight = (double)(int16_t)(uint16_t)a * 0.0625;",
        ]);
        self.lines(&["table[i].more[i & 1] = c;", "}"]);
        self.line(format!("for (int i = 1; i < {count}; i++) {{"));
        let order = self.random.one_of(&["key >", "small <", "weight >", "flag >", "more[1] >"]);
        let field = order.split(' ').next().unwrap_or_default();
        self.lines(&["record moved = table[i];", "int j = i;"]);
        self.line(format!("while (j > 0 && table[j - 1].{order} moved.{field}) {{"));
        self.lines(&["table[j] = table[j - 1];", "j--;", "}", "table[j] = moved;", "}"]);
        self.line(format!("for (record *r = table; r < table + {count}; r++) {{"));
        self.lines(&["if (r->weight * r->small > best->weight)", "\tbest = r;"]);
        self.lines(&[
            "h = mix(h, r->key + r->flag * 5u + r->rest);",
            "h = mix(h, (u64)(int64_t)r->small ^ bits(r->weight));",
        ]);
        self.lines(&["h = mix(h, r->more[0] - r->more[1]);", "}", "c += (u64)(best - table);"]);
        self.changes(4);
    }

    fn bytes(&mut self) {
        let len = self.random.below(200) + 50;
        self.line(format!("char text[{}], copy[{}];", len + 1, len + 17));
        self.line("unsigned count[256] = { 0 };");
        self.line(format!("for (int i = 0; i < {len}; i++) {{"));
        self.changes(2);
        self.lines(&[
            "text[i] = (char)('a' + a % 26);",
            "if (b % 7 == 0)",
            "\ttext[i] = ' ';",
            "}",
        ]);
        self.line(format!("text[{len}] = 0;"));
        self.lines(&["memset(copy, 0, sizeof copy);", "strcpy(copy + c % 16, text);"]);
        let (to, from) = (self.random.below(20), self.random.below(20));
        self.line(format!("memmove(copy + {to}, copy + {from}, {});", len - 20));
        self.line("for (const char *p = copy; *p; p++) {");
        self.lines(&["count[(unsigned char)*p]++;", "h = h * 31 + (unsigned char)*p;", "}"]);
        self.lines(&["char *word = strchr(text, ' ');", "for (int n = 0; word && n < 20; n++) {"]);
        self.lines(&[
            "a += (u64)(word - text);",
            "*word = '_';",
            "word = strchr(word + 1, ' ');",
            "}",
        ]);
        self.lines(&["for (int i = 'a'; i <= 'z'; i++)", "\tb = b * 3 + count[i];"]);
        self.lines(&[
            "c += strlen(text) + strspn(text, \"abcdefghijklm_\");",
            "c += memcmp(text, copy, 20) > 0;",
        ]);
        self.changes(6);
    }

    fn recursion(&mut self, number: u32) {
        self.line(format!("if (seed >> 32 == {number}) {{"));
        self.line("uint32_t depth = seed & 15, way = seed >> 16 & 0xff;");
        self.changes(6);
        self.lines(&["if (depth == 0)", "\treturn mix(a, c);"]);
        self.line(format!(
            "u64 next = (u64){number} << 32 | (u64)(way * 5 + depth & 0xff) << 16 | (depth - 1);"
        ));
        self.line(format!("b ^= f{number}(next);"));
        self.lines(&["if (way & 1)"]);
        self.line(format!("\tc += f{number}(next ^ 0x30000);"));
        self.changes(6);
        self.lines(&["return mix(b, c + way);", "}"]);
        self.line("for (u64 way = 0; way < 6; way++) {");
        self.line(format!(
            "h = mix(h, f{number}((u64){number} << 32 | (a + way & 0xff) << 16 | (6 + way % 3)));"
        ));
        self.changes(5);
        self.line("}");
    }

    fn matrices(&mut self) {
        let size = self.random.below(8) + 5;
        self.line(format!("enum {{ N = {size} }};"));
        self.lines(&["double m[N][N], p[N][N];", "int32_t q[N * N];", "uint16_t w[N * N];"]);
        self.line("for (int i = 0; i < N * N; i++) {");
        self.changes(3);
        self.lines(&[
            "m[i / N][i % N] = (double)(int8_t)(uint8_t)a * 0.5;",
            "q[i] = (int16_t)(uint16_t)b;",
        ]);
        self.lines(&["w[i] = (uint16_t)c;", "}"]);
        self.line("for (int i = 0; i < N; i++) {");
        self.lines(&[
            "for (int j = 0; j < N; j++) {",
            "double sum = 0;",
            "for (int k = 0; k < N; k++)",
        ]);
        self.lines(&["\tsum += m[i][k] * m[k][j];", "p[i][j] = sum;", "}", "}"]);
        self.lines(&[
            "for (int i = 0; i < N * N; i++) {",
            "q[i] = q[i] * 3 - w[i];",
            "w[i] = (uint16_t)(w[i] + q[i] / 2);",
            "}",
        ]);
        self.lines(&["int32_t low = q[0], sum = 0;", "for (int i = 0; i < N * N; i++) {"]);
        self.lines(&[
            "low = q[i] < low ? q[i] : low;",
            "sum += q[i] ^ w[i];",
            "h = mix(h, bits(p[i / N][i % N]));",
            "}",
        ]);
        self.lines(&["a += (u64)low;", "b ^= (u64)sum;"]);
        self.changes(8);
    }

    fn lists(&mut self) {
        let count = self.random.below(40) + 10;
        self.line(format!("node nodes[{count}], *head = 0, *reversed = 0;"));
        self.line(format!("for (int i = 0; i < {count}; i++) {{"));
        self.changes(3);
        self.line("nodes[i].value = a ^ c;");
        self.lines(&[
            "node **place = &head;",
            "while (*place && (*place)->value < nodes[i].value)",
            "\tplace = &(*place)->next;",
        ]);
        self.lines(&["nodes[i].next = *place;", "*place = &nodes[i];", "}", "while (head) {"]);
        self.lines(&[
            "node *next = head->next;",
            "if (head->value % 3 == 0) {",
            "b += head->value;",
            "} else {",
        ]);
        self.lines(&["head->next = reversed;", "reversed = head;", "}", "head = next;", "}"]);
        self.lines(&["for (node *n = reversed; n; n = n->next) {", "h = mix(h, n->value);"]);
        self.changes(4);
        self.line("}");
        self.changes(4);
    }

    fn main(&mut self) {
        self.line("");
        self.line("static u64 (*const functions[])(u64) = {");
        for number in 0..FUNCTIONS {
            self.line(format!("f{number},"));
        }
        self.lines(&["};", "", "int main(void)", "{", "u64 total = 0;"]);
        self.line(format!("for (int i = 0; i < {FUNCTIONS}; i++) {{"));
        self.lines(&["u64 sum = 0;", "for (u64 n = 0; n < 200; n++)"]);
        self.line("\tsum = mix(sum, functions[i](n * 0x12345));");
        self.lines(&[
            "printf(\"f%d %016llx\\n\", i, (unsigned long long)sum);",
            "total = mix(total, sum);",
            "}",
        ]);
        self.lines(&["printf(\"total %016llx\\n\", (unsigned long long)total);", "return 0;", "}"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_long_enough_and_the_same_every_time() {
        let text = source();

        assert!(text.lines().count() >= 10_000, "{}", text.lines().count());
        assert_eq!(text, source());
    }

    #[test]
    fn braces_match_and_indentation_ends_where_it_began() {
        let text = source();

        let count = |brace: char| text.matches(brace).count();
        assert_eq!(count('{'), count('}'));
        assert!(text.ends_with("\n}\n"));
    }
}
