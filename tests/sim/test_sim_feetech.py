"""The servos' protocol, byte by byte."""

from gripwire_sim.feetech import MODEL_STS3215, PING, READ, SYNC_READ, SYNC_WRITE, WRITE, Chain, Servo, packet


def chain(**faults: object) -> Chain:
    built = Chain([Servo(1), Servo(2)])
    for name, value in faults.items():
        setattr(built, name, value)
    return built


def test_a_ping_is_answered_by_the_servo_it_names() -> None:
    # FF FF 01 02 01 FB is the manual's own example, and FF FF 01 02 00 FC its answer.
    assert chain().feed(bytes.fromhex("ffff010201fb")) == bytes.fromhex("ffff010200fc")


def test_a_broadcast_ping_is_answered_by_all_in_order() -> None:
    assert chain().feed(packet(0xFE, PING)) == packet(1, 0) + packet(2, 0)


def test_a_packet_may_come_in_single_bytes_after_noise() -> None:
    bus, answer = chain(), b""
    for byte in b"\x00\xff\x07" + b"\xff" + packet(2, READ, bytes([3, 2])):
        answer += bus.feed(bytes([byte]))
    assert answer == packet(2, 0, MODEL_STS3215.to_bytes(2, "little"))


def test_a_packet_with_a_wrong_checksum_is_ignored_and_the_next_is_heard() -> None:
    bus = chain()
    spoilt = bytearray(packet(1, PING))
    spoilt[-1] ^= 1
    assert bus.feed(bytes(spoilt) + packet(2, PING)) == packet(2, 0)
    assert bus.bad_packets == 1


def test_an_unfinished_packet_is_forgotten_after_a_silence() -> None:
    bus = chain()
    assert bus.feed(packet(1, PING)[:-2]) == b""
    bus.forget()
    assert bus.feed(packet(2, PING)) == packet(2, 0)


def test_a_write_is_acknowledged_and_kept_and_a_sync_write_is_silent() -> None:
    bus = chain()
    assert bus.feed(packet(1, WRITE, bytes([42, 0x10, 0x08]))) == packet(1, 0)
    assert bus.servos[1].get("Goal_Position") == 0x0810
    assert bus.feed(packet(0xFE, SYNC_WRITE, bytes([42, 2, 1, 1, 4, 2, 2, 4]))) == b""
    assert [servo.get("Goal_Position") for servo in bus.servos.values()] == [0x0401, 0x0402]


def test_what_a_servo_senses_cannot_be_written() -> None:
    bus = chain()
    bus.servos[1].sense(encoder=1234, velocity=0, load=0, temperature=30)
    bus.feed(packet(1, WRITE, bytes([56, 0, 0])))
    assert bus.servos[1].get("Present_Position") == 1234


def test_negative_values_are_sign_and_magnitude() -> None:
    servo = Servo(1, Homing_Offset=-268)
    assert servo.read(31, 2) == (268 | 1 << 11).to_bytes(2, "little")
    servo.sense(encoder=-300, velocity=-40, load=-0.5, temperature=30)
    assert (servo.get("Present_Position"), servo.get("Present_Load")) == (-32, -500)


def test_a_goal_is_held_within_the_position_limits() -> None:
    servo = Servo(1, Min_Position_Limit=1000, Max_Position_Limit=2000, Homing_Offset=50)
    servo.set("Goal_Position", 4000)
    assert servo.goal == 2050


def test_a_limp_servos_goal_follows_it_so_that_torque_on_does_not_jump() -> None:
    servo = Servo(1)
    servo.set("Goal_Position", 100)
    servo.sense(encoder=2222, velocity=0, load=0, temperature=30)
    servo.set("Torque_Enable", 1)
    assert servo.goal == 2222


def test_a_silent_servo_neither_hears_nor_answers() -> None:
    bus = chain(silent={1})
    assert bus.feed(packet(1, PING)) == b""
    assert bus.feed(packet(0xFE, SYNC_READ, bytes([3, 2, 1, 2]))) == packet(2, 0, b"\x09\x03")
    bus.feed(packet(0xFE, SYNC_WRITE, bytes([42, 2, 1, 1, 4, 2, 2, 4])))
    assert [servo.get("Goal_Position") for servo in bus.servos.values()] == [0, 0x0402]


def test_an_overheated_servo_says_so_in_every_status_and_lets_go() -> None:
    bus = chain()
    bus.servos[1].set("Torque_Enable", 1)
    bus.servos[1].sense(encoder=0, velocity=0, load=0, temperature=85)
    assert bus.feed(packet(1, PING)) == packet(1, 0x04)
    assert not bus.servos[1].torque


def test_corruption_flips_one_bit_in_the_share_of_packets_asked_for() -> None:
    bus = chain(corrupt=0.25)
    whole = packet(1, 0)
    answers = [bus.feed(packet(1, PING)) for _ in range(400)]
    spoilt = [answer for answer in answers if answer != whole]
    assert 60 < len(spoilt) < 140
    for answer in spoilt:
        assert len(answer) == len(whole)
        assert sum((a ^ b).bit_count() for a, b in zip(answer, whole, strict=True)) == 1
