-- Owns the connections of a worker of nginx to PostgreSQL, and the statement that is prepared in each of them. A request takes
-- an idle connection or opens one; while the pool is full, it waits in the pool's queue. Parameters are text; rows that the
-- statement returns are ignored. PostgreSQL has to trust the user at that socket.
--
--   local server = require("postgres").new { socket = "/run/.s.PGSQL.5432", user = "web", database = "posts",
--                                            statement = "insert into …", pool_size = 32 }
--   local ok, err = server:execute(first, second)

local byte, char, concat, sub = string.byte, string.char, table.concat, string.sub

local SYNC = "S\0\0\0\4"
local EXECUTE = "E\0\0\0\9\0\0\0\0\0"
local ERROR, AUTHENTICATION, READY = byte("ERZ", 1, 3)

local M = {}
M.__index = M


local function int32(n)
    return char(bit.rshift(n, 24), bit.band(bit.rshift(n, 16), 255), bit.band(bit.rshift(n, 8), 255), bit.band(n, 255))
end


local function message(type, ...)
    local body = concat { ... }

    return type .. int32(#body + 4) .. body
end


-- Sends messages and reads until the server is ready for a query. Returns true, or nil and the first error.
local function exchange(sock, messages)
    local ok, err = sock:send(messages)
    local have, from, failure = "", 1, nil

    while ok do
        while #have - from >= 4 do
            local type, a, b, c, d = byte(have, from, from + 4)
            local after = from + 1 + ((a * 256 + b) * 256 + c) * 256 + d

            if after > #have + 1 then
                break
            elseif type == ERROR then
                failure = failure or sub(have, from + 5, after - 1):gsub("%z", " ")
            elseif type == AUTHENTICATION and sub(have, from + 5, from + 8) ~= "\0\0\0\0" then
                return nil, "the server does not trust the user"
            elseif type == READY then
                return not failure or nil, failure
            end

            from = after
        end

        ok, err = sock:receiveany(65536)
        have, from = sub(have, from) .. (ok or ""), 1
    end

    return nil, failure or err
end


-- Runs the statement with these parameters in a transaction of its own. Returns true when it is committed, or nil and an error.
function M:execute(...)
    local sock = ngx.socket.tcp()
    local values = { ... }

    for i, value in ipairs(values) do
        values[i] = int32(#value) .. value
    end

    sock:settimeouts(10000, 10000, 30000)
    local ok, err = sock:connect(self.address, self.options)

    if ok and sock:getreusedtimes() == 0 then
        ok, err = exchange(sock, self.startup)

        if ok then
            ok, err = exchange(sock, self.parse)
        end
    end

    if ok then
        ok, err = exchange(sock, { message("B", "\0s\0\0\0\0", char(#values), concat(values), "\0\0"), EXECUTE, SYNC })
    end

    if ok then
        sock:setkeepalive(0)
    else
        sock:close()
    end

    return ok, err
end


function M.new(o)
    return setmetatable({
        address = "unix:" .. o.socket,
        options = { pool = concat({ o.socket, o.user, o.database }, " "), pool_size = o.pool_size, backlog = 100000 },
        startup = message("", "\0\3\0\0user\0", o.user, "\0database\0", o.database, "\0\0"),
        parse = message("P", "s\0", o.statement, "\0\0\0") .. SYNC,
    }, M)
end


return M
