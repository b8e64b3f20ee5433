-- NATS for pipeline.lua: publishes to a subject of JetStream. The subject of the reply contains the number of the message.
--
--   require("pipeline").start(port, require("nats")("posts"))

local find, match = string.find, string.match

local HELLO = 'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n'


local function open(sock)
    return sock:receive()       -- INFO
        and sock:send { HELLO, "SUB ack.", ngx.worker.pid(), ".* 1\r\nPING\r\n" }
        and sock:receive() == "PONG"
end


-- A reply with headers says that no stream stores the subject.
local function read(sock, line)
    while true do
        local head, err = sock:receive()

        if not head then
            return err
        elseif head == "PING" then
            line:push("PONG\r\n")
        elseif find(head, "MSG", 1, true) then
            local number, size = match(head, "(%d+) 1 .-(%d+)$")
            local body = sock:receive(tonumber(size) + 2)

            line:settle(tonumber(number), find(head, "^MSG") and body and not find(body, '"error"', 1, true))
        elseif find(head, "^-ERR") then
            return head
        end
    end
end


return function(subject)
    local prefix = "PUB " .. subject .. " ack." .. ngx.worker.pid() .. "."

    local function frame(number, body)
        return prefix .. number .. " " .. #body .. "\r\n" .. body .. "\r\n"
    end

    return { open = open, frame = frame, read = read }
end
