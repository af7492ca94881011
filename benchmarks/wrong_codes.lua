-- Look up codes of the right shape that nobody minted, each from another address. They are made
-- before the load begins, so that the load is all that wrk does while it measures.
local letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
local requests, turn = {}, 0

init = function()
  for r = 1, 20000 do
    local code = { "0" } -- a code is below 2^192, so it begins with 0
    for i = 2, 33 do
      local n = math.random(#letters)
      code[i] = letters:sub(n, n)
    end
    local address = string.format("10.%d.%d.%d", math.random(0, 255), math.random(0, 255), math.random(0, 255))
    local path = "/api/public/token/details?token=" .. table.concat(code)
    requests[r] = wrk.format("GET", path, { ["X-Forwarded-For"] = address })
  end
end

request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
