"""A blank device that greets and echoes, written from protocol/SPEC.md alone, to show that the text suffices.

Takes the path of a serial port. It must never share code with the implementation in Rust, nor copy a habit from it.
"""

import random
import struct
import sys
import time
import zlib

import serial

OPEN, RESET, PING, DAMAGED, HELD, DEVICE = 1, 2, 4, 8, 16, 32
HEADER = struct.Struct("<BHBHHBHH")
ROOM, LARGEST, FLIGHTS = 4096, 512, 16
MALFORMED, UNKNOWN_VERSION, SEQUENCE, UNSUPPORTED = 0, 1, 17, 18


def stuff(frame):
    """COBS, with the zeros around it."""
    out = bytearray()
    for run in frame.split(b"\0"):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
        out += bytes([len(run) + 1]) + run
    return b"\0" + bytes(out) + b"\0"


def unstuff(coded):
    """The frame, or None."""
    out, at = bytearray(), 0
    while at < len(coded):
        code = coded[at]
        if at + code > len(coded):
            return None
        out += coded[at + 1 : at + code]
        at += code
        if code < 255 and at < len(coded):
            out.append(0)
    return bytes(out)


def parse(coded):
    """The fields of a frame, or None for anything that is none (M-2, M-36)."""
    frame = unstuff(coded)
    if frame is None or len(frame) < HEADER.size + 4 or zlib.crc32(frame[:-4]) != int.from_bytes(frame[-4:], "little"):
        return None
    first, session, number, offset, ack, heard, credit, length = HEADER.unpack_from(frame)
    body, wish, ranges = frame[HEADER.size : -4], None, []
    if first >> 6 != 1 or first & DEVICE or first & (OPEN | RESET) == OPEN | RESET:
        return None
    if first & OPEN:
        if len(body) < 8:
            return None
        wish, body = struct.unpack_from("<IHH", body), body[8:]
    if first & HELD:
        if not body or not 1 <= body[0] <= 4 or len(body) < 1 + 4 * body[0]:
            return None
        ranges, body = list(struct.iter_unpack("<HH", body[1 : 1 + 4 * body[0]])), body[1 + 4 * body[0] :]
    if len(body) != length:
        return None
    return first & 63, session, number, offset, ack, heard, credit, wish, ranges, body


class Session:
    """One session; offsets and numbers are counted on without a modulus in here."""

    def __init__(self, session, wish):
        self.session, (self.nonce, likes, _) = session, wish
        self.limit, self.opening, self.greeted = min(LARGEST, max(64, likes)), True, False
        self.expected, self.heard, self.held, self.inbox = 0, 255, {}, bytearray()
        self.outbox, self.acked, self.sent, self.allowed, self.number = bytearray(), 0, 0, 0, 0
        self.flights, self.lost, self.smooth, self.spread, self.overdue = [], [], None, 0.0, 0
        self.news = self.good = time.monotonic()
        self.reports, self.told = 0, ROOM

    def credit(self):
        return ROOM - len(self.inbox)

    def frame(self, flags=0, at=None, data=b""):
        """Builds a frame; one with data or PING gets a number and is remembered."""
        number = 0
        if data or flags & PING:
            number, self.number, self.news = self.number, self.number + 1, time.monotonic()
            start = self.sent if at is None else at
            self.flights.append((number, start, start + len(data), self.news))
        ranges, parameters = self.ranges(), b""
        if self.opening:
            flags, parameters = flags | OPEN, struct.pack("<IHH", self.nonce, LARGEST, 0)
        if ranges:
            flags |= HELD
            pairs = [offset & 0xFFFF for pair in ranges for offset in pair]
            parameters += struct.pack(f"<B{len(pairs)}H", len(ranges), *pairs)
        self.told = self.credit()
        head = HEADER.pack(64 | DEVICE | flags, self.session, number & 255, (self.sent if at is None else at) & 0xFFFF,
                           self.expected & 0xFFFF, self.heard, self.told, len(data))
        frame = head + parameters + data
        return stuff(frame + struct.pack("<I", zlib.crc32(frame)))

    def ranges(self):
        found = []
        for start in sorted(self.held):
            end = start + len(self.held[start])
            if found and start <= found[-1][1]:
                found[-1][1] = max(found[-1][1], end)
            else:
                found.append([start, end])
        return found[:4]

    def take(self, flags, number, offset, ack, heard, credit, ranges, body):
        """A good frame of this session: what the other end has, then what it sends (M-5, M-6, M-37)."""
        self.good, self.reports = time.monotonic(), 0
        self.opening = self.opening and bool(flags & OPEN)
        whole = lambda value: self.acked + ((value - self.acked + 0x8000) & 0xFFFF) - 0x8000
        acked, pairs = whole(ack), [(whole(a), whole(b)) for a, b in ranges]
        if self.acked <= acked <= self.sent:
            self.outbox, self.acked, self.allowed = self.outbox[acked - self.acked :], acked, acked + credit
        last = self.number - 1 - ((self.number - 1 - heard) & 255)
        for flight in [one for one in self.flights if one[0] <= last]:
            self.flights.remove(flight)
            self.news, self.overdue = self.good, 0
            if flight[0] == last:
                took = self.good - flight[3]
                self.spread = took / 2 if self.smooth is None else 0.75 * self.spread + abs(self.smooth - took) / 4
                self.smooth = took if self.smooth is None else 0.875 * self.smooth + took / 8
            if flight[1] < flight[2] and not any(a <= flight[1] and flight[2] <= b for a, b in pairs):
                self.lost.append(flight[1:3])
        if not body and not flags & PING:
            return b""
        self.heard = number
        start = self.expected + ((offset - self.expected + 0x8000) & 0xFFFF) - 0x8000
        body = body[: max(0, self.expected + self.credit() - start)]
        if start + len(body) > self.expected and (start <= self.expected or start in self.held or len(self.ranges()) < 4):
            self.held[start] = max(self.held.get(start, b""), body, key=len)
        while ready := [one for one in self.held if one <= self.expected]:
            piece = self.held.pop(ready[0])[self.expected - ready[0] :]
            self.inbox += piece
            self.expected += len(piece)
        self.answer()
        return self.fill() or self.frame()

    def answer(self):
        """Answers every whole message (section 3)."""
        while len(self.inbox) >= 2 and len(self.inbox) >= 2 + (length := int.from_bytes(self.inbox[:2], "little")):
            message, self.inbox = bytes(self.inbox[2 : 2 + length]), self.inbox[2 + length :]
            if message:
                reply = self.reply(message)
                self.outbox += struct.pack("<H", len(reply)) + reply

    def reply(self, message):
        if message[0] == 0 and len(message) == 3:
            if message[1] > 0:
                return bytes([3, UNKNOWN_VERSION])
            self.greeted = True
            hello = bytes([0, 0]) + b"interop".ljust(16, b"\0") + bytes(36) + bytes([0, 0]) + bytes(4) + b"\x5a" * 32
            return hello + b"\x06python" + b"\x03spc"
        if not self.greeted:
            return bytes([3, SEQUENCE])
        return b"\x06" + message[1:] if message[0] == 5 else bytes([3, UNSUPPORTED])

    def fill(self):
        """What may go out now: lost bytes first, then new ones within the credit (M-37, M-38)."""
        out = b""
        while len(self.flights) < FLIGHTS:
            start, end = self.lost.pop(0) if self.lost else (self.sent, min(self.acked + len(self.outbox), self.allowed))
            start, cut = max(start, self.acked), min(end, max(start, self.acked) + self.limit)
            if cut <= start:
                if end > self.acked or not self.lost:
                    break
                continue
            if cut < end <= self.sent:
                self.lost.insert(0, (cut, end))
            data = bytes(self.outbox[start - self.acked : cut - self.acked])
            out += self.frame(0, start, data)
            self.sent = max(self.sent, cut)
        return out

    def tick(self):
        """What time brings: a PING when an answer is overdue (M-4), and news of room."""
        wait = 0.1 if self.smooth is None else self.smooth + 4 * self.spread + 0.02
        wait = min(wait * 2 ** max(0, self.overdue - 3), 1.0)
        if self.flights and time.monotonic() - self.news > wait:
            self.overdue += 1
            return self.frame(PING)
        return self.frame() if self.credit() - self.told >= ROOM // 4 else b""


def reset(number_of):
    """A frame that says that this session is over, or not known."""
    frame = HEADER.pack(64 | DEVICE | RESET, number_of, 0, 0, 0, 0, 0, 0)
    return stuff(frame + struct.pack("<I", zlib.crc32(frame)))


def step(session, coded, last):
    """The session after these bytes between two zeros, and what to send. `last` is the number of the session before (M-54)."""
    fields = parse(coded)
    if fields is None:
        if session and session.reports < 4:
            session.reports += 1
            return session, session.frame(DAMAGED)
        return session, b""
    flags, number_of, number, offset, ack, heard, credit, wish, ranges, body = fields
    mine = session is not None and session.session == number_of
    if flags & RESET:
        return (None if mine else session), b""
    known = session is not None and wish[0] == session.nonce if wish else mine
    if not known and flags & OPEN:
        if offset or len(body) > 32:
            return session, b""
        session = Session((last + 1) & 0xFFFF, wish)
    elif not known:
        return session, reset(number_of)
    return session, session.take(flags, number, offset, ack, heard, credit, ranges, body)


def main():
    """Serves the port until it is gone."""
    session, pending, last = None, bytearray(), random.getrandbits(16)
    with serial.Serial(sys.argv[1], 115200, timeout=0.005) as port:
        print("ready", flush=True)
        while True:
            for byte in port.read(max(1, port.in_waiting)):
                if byte:
                    pending = (pending + bytes([byte]))[: 2 * LARGEST]
                    continue
                if pending:
                    session, out = step(session, bytes(pending), last)
                    last = session.session if session else last
                    port.write(out)
                pending = bytearray()
            if session and time.monotonic() - session.good > 30:
                session = None
            if session:
                port.write(session.fill() + session.tick())


if __name__ == "__main__":
    main()
