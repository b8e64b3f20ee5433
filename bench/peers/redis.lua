-- Owns one connection to Redis: sends commands and reads their answers. A worker (move) takes messages from the list "queue" into
-- a table.
--
--   local redis, err = require("redis").connect("unix:/run/redis.sock", { pool_size = 50 })
--   local answer, err = redis:call("RPUSH", "queue", body)
--   redis:keep() or redis:close()
--
-- An answer is a string, a number, a table of answers, or ngx.null.

local concat = table.concat

local M = {}
M.__index = M


-- connect(host, port) or connect("unix:…"), with cosocket's options.
function M.connect(...)
    local sock = ngx.socket.tcp()
    sock:settimeouts(10000, 10000, 30000)

    local ok, err = sock:connect(...)

    return ok and setmetatable({ sock = sock }, M), err
end


local function answer(sock)
    local line, err = sock:receive("*l")

    if not line then
        return nil, err
    end

    local type, value = line:sub(1, 1), line:sub(2)

    if type == "-" then
        return nil, value
    elseif type == ":" then
        return tonumber(value)
    elseif type == "+" then
        return value
    elseif value == "-1" then
        return ngx.null
    elseif type == "$" then
        local text, failure = sock:receive(tonumber(value) + 2)
        return text and text:sub(1, -3), failure
    end

    local list = {}

    for i = 1, tonumber(value) do
        list[i], err = answer(sock)

        if not list[i] then
            return nil, err
        end
    end

    return list
end


function M:call(...)
    local words = { ... }

    for i, word in ipairs(words) do
        words[i] = "$" .. #word .. "\r\n" .. word .. "\r\n"
    end

    local ok, err = self.sock:send({ "*", #words, "\r\n", concat(words) })

    if not ok then
        return nil, err
    end

    return answer(self.sock)
end


function M:keep() return self.sock:setkeepalive(0) end

function M:close() return self.sock:close() end


-- Takes one message off the list and inserts it. What was taken is lost with this process.
function M.move_one(redis, server)
    local popped, err = redis:call("BLPOP", "queue", "1")

    if not popped or popped == ngx.null then
        return popped, err
    end

    return server:execute(popped[2])
end


-- Inserts up to 500 messages with one statement, which takes an array. They are removed from the list after the commit.
function M.move_batch(redis, server)
    local list, err = redis:call("LRANGE", "queue", "0", "499")

    if not list then
        return nil, err
    elseif #list == 0 then
        -- moves the first message to where it is: waits until there is one
        return redis:call("BLMOVE", "queue", "queue", "LEFT", "LEFT", "1")
    end

    for i, message in ipairs(list) do
        list[i] = message:gsub('[\\"]', "\\%0")
    end

    local ok, failure = server:execute('{"' .. concat(list, '","') .. '"}')

    if not ok then
        return nil, failure
    end

    return redis:call("LTRIM", "queue", tostring(#list), "-1")
end


-- Repeats one of these functions until the process ends, with a new connection after an error.
function M.work(move, server, ...)
    while not ngx.worker.exiting() do
        local redis, err = M.connect(...)

        while redis and not err and not ngx.worker.exiting() do
            err = select(2, move(redis, server))
        end

        ngx.log(ngx.NOTICE, err)
        ngx.sleep(0.1)
    end
end


return M
