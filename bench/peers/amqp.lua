-- AMQP 0-9-1 for pipeline.lua: publishes persistent messages to a durable queue, with publisher confirms. A message has to fit
-- into a frame (128 kB).
--
--   require("pipeline").start(port, require("amqp")("posts"))

local byte, char, sub = string.byte, string.char, string.sub

local METHOD, HEADER, BODY = "\1", "\2", "\3"
local ACK, NACK = "\0\60\0\80", "\0\60\0\120"


local function int32(n)
    return char(bit.rshift(n, 24), bit.band(bit.rshift(n, 16), 255), bit.band(bit.rshift(n, 8), 255), bit.band(n, 255))
end


local function number(text)
    local n = 0

    for i = 1, #text do
        n = n * 256 + byte(text, i)
    end

    return n
end


local function pack(type, channel, payload)
    return type .. "\0" .. channel .. int32(#payload) .. payload .. "\206"
end


-- Returns the payload of the next frame.
local function receive(sock)
    local head, err = sock:receive(7)
    local payload = head and sock:receive(number(sub(head, 4)) + 1)

    return payload and sub(payload, 1, -2), err
end


-- Sends a method and waits for this answer. Returns its arguments.
local function call(sock, channel, method, answer)
    local payload = sock:send(pack(METHOD, channel, method)) and receive(sock)

    return payload and sub(payload, 1, 4) == answer and sub(payload, 5)
end


local function open(sock)
    local tune = sock:send("AMQP\0\0\9\1") and receive(sock)
        and call(sock, "\0", "\0\10\0\11\0\0\0\0\5PLAIN\0\0\0\12\0guest\0guest\5en_US", "\0\10\0\30")

    return tune
        and sock:send(pack(METHOD, "\0", "\0\10\0\31" .. sub(tune, 1, 6) .. "\0\0"))      -- without heartbeats
        and call(sock, "\0", "\0\10\0\40\1/\0\0", "\0\10\0\41")
        and call(sock, "\1", "\0\20\0\10\0", "\0\20\0\11")
        and call(sock, "\1", "\0\85\0\10\0", "\0\85\0\11")
end


local function read(sock, line)
    local next = 1

    while true do
        local payload, err = receive(sock)
        local method = payload and sub(payload, 1, 4)

        if method ~= ACK and method ~= NACK then
            return err or "the broker has closed it"
        end

        local tag = number(sub(payload, 5, 12))

        if byte(payload, 13) % 2 == 1 then      -- all until this one
            for i = next, tag do
                line:settle(i, method == ACK)
            end

            next = tag + 1
        else
            line:settle(tag, method == ACK)
        end
    end
end


return function(queue)
    local publish = pack(METHOD, "\1", "\0\60\0\40\0\0\0" .. char(#queue) .. queue .. "\0")

    local function frame(_, body)
        return publish .. pack(HEADER, "\1", "\0\60\0\0\0\0\0\0" .. int32(#body) .. "\16\0\2") .. pack(BODY, "\1", body)
    end

    return { open = open, frame = frame, read = read }
end
