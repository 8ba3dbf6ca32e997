-- Runs in the guest and on the host; both must print the same. Loops long enough that LuaJIT compiles them, in both its
-- ways (compiled and interpreted), with the collector at work.
local bit = require("bit")
local bxor, band, rshift, lshift, tobit = bit.bxor, bit.band, bit.rshift, bit.lshift, bit.tobit

local function hash(text, start)
  local h = start or 0x811c9dc5
  for i = 1, #text do
    h = bxor(h, text:byte(i))
    h = tobit(h + lshift(h, 1) + lshift(h, 4) + lshift(h, 7) + lshift(h, 8) + lshift(h, 24))
  end
  return h
end

local parts = {}

function parts.a_fib()
  local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
  return fib(32)
end

function parts.b_sieve()
  local limit, composite, count, last = 2000000, {}, 0, 0
  for i = 2, limit do
    if not composite[i] then
      count, last = count + 1, i
      for j = i * i, limit, i do composite[j] = true end
    end
  end
  return count .. " " .. last
end

function parts.c_nbody()
  local bodies = {}
  for i = 1, 5 do
    bodies[i] = { x = i * 1.25, y = 3 - i * 0.75, z = i % 3 * 0.5, vx = 0.1 * i, vy = 0.2 - 0.05 * i, vz = 0.01 * i, mass = 10 / i }
  end
  for _ = 1, 200000 do
    for i = 1, #bodies do
      local a = bodies[i]
      for j = i + 1, #bodies do
        local b = bodies[j]
        local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
        local square = dx * dx + dy * dy + dz * dz + 0.01
        local pull = 0.001 / (square * math.sqrt(square))
        a.vx, a.vy, a.vz = a.vx - dx * b.mass * pull, a.vy - dy * b.mass * pull, a.vz - dz * b.mass * pull
        b.vx, b.vy, b.vz = b.vx + dx * a.mass * pull, b.vy + dy * a.mass * pull, b.vz + dz * a.mass * pull
      end
    end
    for i = 1, #bodies do
      local a = bodies[i]
      a.x, a.y, a.z = a.x + 0.001 * a.vx, a.y + 0.001 * a.vy, a.z + 0.001 * a.vz
    end
  end
  local text = {}
  for i = 1, #bodies do text[i] = string.format("%.17g %.17g", bodies[i].x, bodies[i].vy) end
  return table.concat(text, " ")
end

function parts.d_mandelbrot()
  local size, inside, weight = 400, 0, 0
  for row = 0, size - 1 do
    for column = 0, size - 1 do
      local cr, ci, zr, zi, n = 2 * column / size - 1.5, 2 * row / size - 1, 0, 0, 0
      while n < 100 and zr * zr + zi * zi < 4 do
        zr, zi, n = zr * zr - zi * zi + cr, 2 * zr * zi + ci, n + 1
      end
      if n == 100 then inside = inside + 1 end
      weight = (weight * 31 + n) % 1000000007
    end
  end
  return inside .. " " .. weight
end

function parts.e_strings()
  local pieces, h = {}, nil
  for i = 1, 60000 do
    pieces[#pieces + 1] = ("%d:%x:%s;"):format(i, i * 2654435761 % 4294967296, ("ab"):rep(i % 5))
    if #pieces == 500 then
      local text = table.concat(pieces)
      h = hash(text:gsub("(%d+):(%x+)", "%2-%1"):upper():reverse(), h)
      pieces = {}
    end
  end
  return h
end

function parts.f_tables()
  local map, order, state = {}, {}, 12345
  for i = 1, 100000 do
    state = (state * 1103515245 + 12345) % 2147483648
    local key = "k" .. state % 5000
    map[key] = (map[key] or 0) + i % 17
  end
  for key in pairs(map) do order[#order + 1] = key end
  table.sort(order, function(a, b) if map[a] ~= map[b] then return map[a] < map[b] end return a < b end)
  local h
  for i = 1, #order do h = hash(order[i] .. map[order[i]], h) end
  return #order .. " " .. h
end

function parts.g_bits()
  local a, b, c = 0x12345678, 0x9abcdef0, 0
  for i = 1, 5000000 do
    a = bxor(a, lshift(a, 13)); a = bxor(a, rshift(a, 17)); a = bxor(a, lshift(a, 5))
    b = tobit(b + a)
    if band(b, 1024) ~= 0 then c = tobit(c + rshift(b, 3)) else c = bxor(c, a) end
  end
  return a .. " " .. b .. " " .. c
end

function parts.h_ffi()
  local ffi = require("ffi")
  ffi.cdef("typedef struct { int64_t n; double d; uint8_t bytes[16]; } kasane_record;")
  local records, sum = ffi.new("kasane_record[?]", 1000), ffi.new("uint64_t", 1)
  for round = 1, 300 do
    for i = 0, 999 do
      local r = records[i]
      r.n = r.n * 3 + i * round
      r.d = r.d * 0.5 + tonumber(r.n % 1000)
      r.bytes[i % 16] = r.bytes[i % 16] + round
      sum = sum * 6364136223846793005ULL + ffi.cast("uint64_t", r.n) + r.bytes[(i + 1) % 16]
    end
  end
  return tostring(sum) .. " " .. ("%.17g"):format(records[999].d)
end

function parts.i_coroutines_and_errors()
  local function numbers(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) end
  local sum, caught = 0, 0
  for n in numbers(200000) do
    local ok, message = pcall(function() if n % 1000 == 0 then error({ n = n }) end return n end)
    if ok then sum = sum + n else caught = caught + message.n end
  end
  return sum .. " " .. caught
end

function parts.j_vectors_of_closures()
  local chain = function(x) return x end
  for i = 1, 50 do
    local inner = chain
    chain = function(x) return (inner(x) * 7 + i) % 1000003 end
  end
  local sum = 0
  for i = 1, 100000 do sum = (sum + chain(i)) % 1000003 end
  return sum
end

local names = {}
for name in pairs(parts) do names[#names + 1] = name end
table.sort(names)
for _, compiled in ipairs({ true, false }) do
  if compiled then jit.on() else jit.off() end
  for _, name in ipairs(names) do
    if compiled or name == "e_strings" or name == "i_coroutines_and_errors" then
      print(name .. (compiled and " compiled: " or " interpreted: ") .. tostring(parts[name]()))
      collectgarbage()
    end
  end
end
print("done " .. jit.version)
