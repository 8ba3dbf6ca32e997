// Runs in the guest and on the host; both must print the same. Each part is hot enough for V8's compilers, and nothing
// depends on time or on chance.
'use strict';

let state = 1;
function random(limit) {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return (state >>> 8) % limit;
}
function hash(text, start = 0x811c9dc5) {
  let h = start;
  for (let i = 0; i < text.length; i++) {
    h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  }
  return h >>> 0;
}

const parts = {
  sort() {
    const numbers = Array.from({ length: 100000 }, () => random(1 << 20));
    const people = numbers.slice(0, 20000).map((n, i) => ({ name: 'p' + (n % 997), age: n % 90, i }));
    numbers.sort((a, b) => a - b);
    people.sort((a, b) => a.age - b.age || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
    return [numbers[777], numbers[77777], hash(people.map((p) => p.i).join())];
  },
  regex() {
    let text = '';
    for (let i = 0; i < 4000; i++) {
      text += `user${random(500)}@host${random(50)}.example ${random(256)}.${random(256)}.${random(256)}.1 2024-0${1 + random(9)}-1${random(9)}; `;
    }
    const mails = text.match(/\b[a-z]+(\d+)@([a-z0-9.]+)/g).length;
    const dates = [...text.matchAll(/(?<y>\d{4})-(?<m>\d\d)-(?<d>\d\d)/g)].reduce((n, m) => n + Number(m.groups.m), 0);
    const swapped = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)/g, (_, a, b, c, d) => `${d}.${c}.${b}.${a}`);
    const backwards = /^(?:.*?(user1\d)@.*?){50}/s.exec(text);
    return [mails, dates, hash(swapped), backwards[1]];
  },
  json() {
    const build = (depth) => depth === 0 ? random(1000) / 8
      : { list: Array.from({ length: 4 }, () => build(depth - 1)), text: 'ä"\\' + random(100), none: null, yes: depth % 2 === 0 };
    let text = JSON.stringify(build(7));
    for (let i = 0; i < 5; i++) {
      text = JSON.stringify(JSON.parse(text, (key, value) => typeof value === 'number' ? value + 0.5 : value));
    }
    return [text.length, hash(text)];
  },
  typedArrays() {
    const size = 120;
    const a = new Float64Array(size * size), b = new Float64Array(size * size), c = new Float64Array(size * size);
    for (let i = 0; i < a.length; i++) { a[i] = random(1000) / 7; b[i] = random(1000) / 11; }
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        let sum = 0;
        for (let k = 0; k < size; k++) sum += a[i * size + k] * b[k * size + j];
        c[i * size + j] = sum;
      }
    }
    const bytes = new Uint8Array(c.buffer);
    const words = new Uint32Array(65536);
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < words.length; i++) words[i] = (words[i] * 33 + bytes[(i * 7 + round) % bytes.length]) | 0;
    }
    const view = new DataView(words.buffer);
    let mixed = 0;
    for (let i = 0; i < 60000; i++) mixed = (mixed + view.getInt16(i * 4 + 1, i % 2 === 0)) | 0;
    const clamped = Uint8ClampedArray.from(c.subarray(0, 1000), (x) => x / 1000);
    const floats = Float32Array.from(c.subarray(0, 1000)).reduce((x, y) => x + y, 0);
    return [c[4321], words[1234], mixed, clamped[500], floats];
  },
  bigInt() {
    let a = 1n, b = 1n;
    for (let i = 0; i < 3000; i++) [a, b] = [b, a + b];
    let power = 1n;
    const modulus = (1n << 521n) - 1n;
    for (let i = 0; i < 400; i++) power = (power * 65537n + BigInt(i)) ** 3n % modulus;
    let factorial = 1n;
    for (let i = 2n; i < 600n; i++) factorial *= i;
    const wrapped = BigInt.asIntN(64, factorial / 3n ** 200n ^ power);
    return [hash(a.toString()), power.toString(36).slice(0, 40), hash(factorial.toString(16)), String(wrapped)];
  },
  classes() {
    class Shape { constructor(n) { this.n = n; } area() { return 0; } get twice() { return this.area() * 2; } }
    class Square extends Shape { area() { return this.n * this.n; } }
    class Circle extends Shape { area() { return this.n * this.n * 3.14159; } }
    class Strange extends Square { area() { return super.area() % 97 + this.#secret(); } #secret() { return this.n & 7; } }
    const kinds = [Square, Circle, Strange, Shape];
    let sum = 0;
    for (let i = 0; i < 1000000; i++) sum += new kinds[(i * 7) & 3](i & 1023).twice;
    return [sum];
  },
  deoptimised() {
    const add = (x, y) => x + y;
    let total = 0;
    for (let i = 0; i < 300000; i++) total = add(total, i) | 0;
    let double = 0.5;
    for (let i = 0; i < 300000; i++) double = add(double, i / 3);
    let text = '';
    for (let i = 0; i < 3000; i++) text = add(text, i);
    const big = add(2n ** 70n, 5n);
    const object = add({ valueOf: () => 20 }, 22);
    let caught = 0;
    for (let i = 0; i < 20000; i++) {
      try { if (i % 3 === 0) null.x; caught += 1; } catch (error) { caught += error instanceof TypeError ? 10 : 100; }
    }
    return [total, double, hash(text), String(big), object, caught];
  },
  maps() {
    const map = new Map(), set = new Set(), weak = new WeakMap();
    for (let i = 0; i < 200000; i++) {
      const key = random(30000);
      map.set(key, (map.get(key) || 0) + 1);
      if (i % 5 === 0) set.add('s' + key);
      if (i % 7 === 0) map.delete(random(30000));
    }
    const keys = [...set].map((key) => ({ key }));
    keys.forEach((object, i) => weak.set(object, i));
    const sum = keys.reduce((n, object) => n + weak.get(object), 0);
    return [map.size, set.size, [...map.values()].reduce((x, y) => x + y, 0), sum];
  },
  generators() {
    function* count(n) { for (let i = 0; i < n; i++) yield i; }
    function* pairs(n) { for (const i of count(n)) { yield* [i, i * i % 101]; } }
    let sum = 0;
    for (const [i, x] of [...pairs(50000)].entries()) sum = (sum * 3 + i * x) % 1000003;
    const { a, ...rest } = { a: 1, b: 2, c: { d: [3, 4, 5] } };
    const [first, , third = 9, ...others] = [1, 2, undefined, 4, 5];
    return [sum, a, JSON.stringify(rest), first, third, others.length];
  },
  mathematics() {
    let x = 0.5, bits = 0;
    for (let i = 0; i < 1000000; i++) {
      x = 3.9 * x * (1 - x);
      bits = (bits * 2 + (x > 0.5 ? 1 : 0)) % 65521;
    }
    const edges = [NaN, -0, 1 / 0, 2 ** 53, -5.5, 1e-310].map((v) => [Math.round(v), Math.trunc(v), v | 0, v >>> 0, Math.fround(v), Math.clz32(v), Math.sign(v)].join('/'));
    const functions = [Math.sin, Math.cos, Math.exp, Math.log, Math.atan, Math.cbrt, Math.tanh].map((f) => f(1.2345));
    return [x, bits, ...edges, ...functions];
  },
  wholeStrings() {
    const words = Array.from({ length: 5000 }, (_, i) => 'wörd' + i.toString(36) + '😀'.repeat(i % 3));
    const text = words.join(' ');
    const upper = text.toUpperCase().normalize('NFD').split(' ').reverse().join('');
    const bytes = Buffer.from(upper, 'utf8');
    return [text.length, hash(upper), bytes.length, hash(bytes.toString('base64')), text.localeCompare(upper), 'straße'.localeCompare('strasse', 'de')];
  },
  digests() {
    const { createHash } = require('crypto');
    const { deflateSync, inflateSync, gzipSync } = require('zlib');
    const data = Buffer.from(Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * i >> 7) & 255));
    const packed = deflateSync(data);
    return [createHash('sha256').update(data).digest('hex'), createHash('md5').update(packed).digest('hex'), inflateSync(packed).equals(data), gzipSync(data).length];
  },
  webAssembly() {
    // (func (export "f") (param i32) (result i32)): sum of i * i for i below the parameter.
    const code = [0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 35, 1, 33, 1, 2,
      127, 3, 64, 32, 1, 32, 2, 32, 2, 108, 106, 33, 1, 32, 2, 65, 1, 106, 34, 2, 32, 0, 73, 13, 0, 11, 32, 1, 11];
    code[28] = code.length - 29;
    code[30] = code.length - 31;
    const { f } = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(code))).exports;
    let sum = 0;
    for (let i = 1; i < 2000; i++) sum = (sum + f(i)) | 0;
    return [f(3000000), sum];
  },
};

async function asynchronous() {
  const order = [];
  const wait = (value) => new Promise((done) => setImmediate(() => done(value)));
  async function* values(n) { for (let i = 0; i < n; i++) yield await (i % 100 ? i : wait(i)); }
  let sum = 0;
  for await (const value of values(20000)) sum += value;
  await Promise.all([3, 1, 2].map(async (n) => { for (let i = 0; i < n; i++) await null; order.push(n); }));
  const settled = await Promise.allSettled([Promise.reject(new Error('no')), wait(7)]);
  const { Worker } = require('worker_threads');
  const answer = await new Promise((done, failed) => {
    const source = "let s = 0; for (let i = 0; i < 3e6; i++) s = (s * 31 + i) | 0; require('worker_threads').parentPort.postMessage(s)";
    new Worker(source, { eval: true }).on('message', done).on('error', failed);
  });
  return [sum, order.join(''), settled.map((one) => one.status).join(), answer];
}

(async () => {
  for (const [name, part] of Object.entries(parts)) console.log(`${name}: ${part().join(' ')}`);
  console.log(`asynchronous: ${(await asynchronous()).join(' ')}`);
  console.log(`done ${process.version}`);
})();
