-- Look up codes of the right shape that nobody minted, each from another address.
local letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

request = function()
  local code = { "0" } -- a code is below 2^192, so it begins with 0
  for i = 2, 33 do
    local n = math.random(#letters)
    code[i] = letters:sub(n, n)
  end
  local address = string.format("10.%d.%d.%d", math.random(0, 255), math.random(0, 255), math.random(0, 255))
  return wrk.format("GET", "/api/public/token/details?token=" .. table.concat(code), { ["X-Forwarded-For"] = address })
end
