-- Owns the connection of a worker of nginx to a broker, which all of its requests share: messages that arrive while others are
-- sent go with the next send, and the broker acknowledges each by its number. The connection is made when the worker starts and
-- again after it was lost; until then, and if the broker refuses a message, publish fails.
--
--   local line = require("pipeline").start(port, protocol)          in init_worker_by_lua
--   local ok, err = line:publish(body)
--
-- protocol has three functions: open(sock) prepares a new connection, frame(number, body) is the text that publishes a message;
-- read(sock, line) runs until the connection is lost, and calls line:settle(number, ok) for each acknowledgement and
-- line:push(text) for an answer. Numbers begin with 1 in each connection.

local semaphore = require "ngx.semaphore"

local TIMEOUT = 30

local M = {}
M.__index = M


-- Sends the message of a request. Returns true when the broker has acknowledged it, or nil and an error.
function M:publish(body)
    if not self.up then
        return nil, "the broker is not connected"
    end

    local message = { body = body, settled = semaphore.new() }

    self:push(message)

    if not message.settled:wait(TIMEOUT) then
        return nil, "no acknowledgement"
    end

    return message.ok, "not acknowledged"
end


-- Adds a message or a text to what is sent next.
function M:push(item)
    self.waiting[#self.waiting + 1] = item

    if self.idle then
        self.idle = false
        self.wake:post()
    end
end


-- The broker has acknowledged or refused the message with this number.
function M:settle(number, ok)
    local message = self.sent[number]
    self.sent[number] = nil

    if message then
        message.ok = ok
        message.settled:post()
    end
end


-- Sends what waits until the connection is lost.
local function send(self, sock)
    local number = 0

    while self.up do
        local items = self.waiting
        self.waiting = {}

        for i, item in ipairs(items) do
            if item.body then
                number = number + 1
                self.sent[number] = item
                items[i] = self.protocol.frame(number, item.body)
            end
        end

        if #items > 0 then
            if not sock:send(items) then
                return
            end
        else
            self.idle = true
            self.wake:wait(TIMEOUT)
        end
    end
end


local function read(self, sock)
    local err = self.protocol.read(sock, self)

    ngx.log(ngx.ERR, "the broker's connection is lost: ", err)
    self.up = false
    self.wake:post()
end


local function run(premature, self)
    while not premature and not ngx.worker.exiting() do
        local sock = ngx.socket.tcp()
        sock:settimeouts(1000, 10000, 86400000)

        if sock:connect("127.0.0.1", self.port) and self.protocol.open(sock) then
            self.waiting, self.sent, self.up = {}, {}, true

            local reader = ngx.thread.spawn(read, self, sock)
            send(self, sock)
            ngx.thread.kill(reader)
            self.up = false

            for number in pairs(self.sent) do
                self:settle(number)
            end

            for _, item in ipairs(self.waiting) do
                if item.body then
                    item.settled:post()
                end
            end
        end

        sock:close()
        ngx.sleep(0.05)
    end
end


function M.start(port, protocol)
    local self = setmetatable({ port = port, protocol = protocol, wake = semaphore.new() }, M)

    ngx.timer.at(0, run, self)

    return self
end


return M
