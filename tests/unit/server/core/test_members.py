import pytest

from common.errors import RefusedError
from common.fields import decode_key, encode_key
from common.limits import GROUP_KEYS_KEPT, MAX_CHANNELS
from common.messages import CandidatesReport, ChannelSpec, Enrolment
from common.tokens import hash_token, make_token
from server.core import members as module
from server.core.join_tokens import JoinTerms
from server.core.members import Members
from tests.unit.server.harness import WALL, entropy, key_of

TOLD = CandidatesReport(candidates=("192.0.2.1:1",), mapping="varies")


def fresh() -> Members:
    return Members(wall=WALL, entropy=entropy())


def enrol(members: Members, device: str, *, key: str | None = None, replaces: bool = False) -> str:
    enrolment = Enrolment(device=device, public_key=key or key_of(device), signing_key=key or key_of(device))
    token = members.enrol(enrolment, wall=WALL, replaces=replaces)
    assert token is not None
    return token


def test_a_new_group_has_one_key_and_the_two_default_channels() -> None:
    members = fresh()
    roster = members.roster()
    assert roster.key_epoch == 1
    assert list(roster.group_keys) == [1]
    assert len(decode_key(roster.group_keys[1])) == 32
    assert [(channel.name, channel.kind) for channel in members.channels.channels] == [
        ("files", "file"),
        ("messages", "message"),
    ]


def test_a_member_s_token_proves_it_and_nobody_else() -> None:
    members = fresh()
    token, other = enrol(members, "A"), enrol(members, "B")
    assert members.authenticate(token) == "A"
    assert members.authenticate(other) == "B"
    assert members.authenticate("A~" + other.rpartition("~")[2]) is None
    assert members.authenticate("Z~secret") is None
    assert "A" in members
    assert members.devices() == ("A", "B")


def test_two_devices_with_one_id_are_refused() -> None:
    members = fresh()
    token = enrol(members, "A")
    before = members.record()
    with pytest.raises(RefusedError, match="device-exists"):
        enrol(members, "A", key=encode_key(bytes([1] * 32)))
    assert members.record() is before
    assert members.authenticate(token) == "A"


def test_a_device_that_proves_itself_gets_a_new_token_and_key_and_keeps_its_addresses() -> None:
    members = fresh()
    old = enrol(members, "A")
    members.set_candidates("A", TOLD, wall=WALL)
    key = encode_key(bytes([1] * 32))
    new = enrol(members, "A", key=key, replaces=True)
    assert members.authenticate(old) is None
    assert members.authenticate(new) == "A"
    assert members.entry("A").public_key == key
    assert members.entry("A").candidates == ("192.0.2.1:1",)
    assert members.entry("A").mapping == "varies"
    assert members.entry("A").public_key == key


def test_a_full_group_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DEVICES_PER_GROUP", 1)
    members = fresh()
    enrol(members, "A")
    with pytest.raises(RefusedError, match=r"group-full.* 1 devices"):
        enrol(members, "B")
    enrol(members, "A", replaces=True)


def test_eviction_voids_the_token_and_makes_a_new_key_of_which_the_last_few_are_kept() -> None:
    members = fresh()
    token = enrol(members, "A")
    keys = [members.roster().group_keys[1]]
    for number in range(GROUP_KEYS_KEPT):
        enrol(members, f"d{number}")
        members.evict(f"d{number}", wall=WALL)
        keys.append(members.roster().group_keys[number + 2])
    members.evict("A", wall=WALL)
    assert members.authenticate(token) is None
    roster = members.roster()
    assert roster.key_epoch == GROUP_KEYS_KEPT + 2
    assert list(roster.group_keys) == [3, 4, 5, 6]
    assert len(set(keys)) == len(keys)
    with pytest.raises(RefusedError, match="unknown-device"):
        members.evict("A", wall=WALL)


def test_the_roster_s_version_grows_with_every_change_and_only_then() -> None:
    members = fresh()
    versions = [members.roster().version]
    enrol(members, "A")
    versions.append(members.roster().version)
    assert members.set_candidates("A", TOLD, wall=WALL)
    versions.append(members.roster().version)
    assert not members.set_candidates("A", TOLD, wall=WALL)
    assert members.roster().version == versions[-1]
    assert members.roster() is members.roster()
    assert members.set_candidates("A", TOLD.model_copy(update={"mapping": "stable"}), wall=WALL)
    versions.append(members.roster().version)
    assert versions == sorted(set(versions))


def test_channels_are_added_replaced_and_removed() -> None:
    members = fresh()
    chat = ChannelSpec(name="chat", kind="message")
    version = members.channels.version
    assert members.put_channel(chat, wall=WALL)
    assert [channel.name for channel in members.channels.channels] == ["chat", "files", "messages"]
    assert members.channels.version > version
    version = members.channels.version
    assert not members.put_channel(chat, wall=WALL)
    assert members.channels.version == version
    assert members.put_channel(chat.model_copy(update={"distribute": False}), wall=WALL)
    members.delete_channel("chat", wall=WALL)
    assert [channel.name for channel in members.channels.channels] == ["files", "messages"]
    with pytest.raises(RefusedError, match="unknown-channel"):
        members.delete_channel("chat", wall=WALL)


def test_channels_have_a_limit_and_at_the_limit_one_may_still_be_replaced() -> None:
    members = fresh()
    for number in range(MAX_CHANNELS - 2):
        members.put_channel(ChannelSpec(name=f"c{number}", kind="file"), wall=WALL)
    with pytest.raises(RefusedError, match=f"{MAX_CHANNELS} channels"):
        members.put_channel(ChannelSpec(name="more", kind="file"), wall=WALL)
    assert members.put_channel(ChannelSpec(name="files", kind="message"), wall=WALL)


def test_everything_survives_a_restart() -> None:
    members = fresh()
    token, join = enrol(members, "A"), members.join_tokens.add(JoinTerms(), now=0.0, wall=WALL)
    again = Members(wall=WALL, entropy=entropy(1), stored=members.record())
    assert again.authenticate(token) == "A"
    assert again.join_tokens.admits(join, wall=WALL)
    assert again.roster() == members.roster()
    assert again.channels == members.channels
    assert again.record() is members.record()


def test_no_token_stands_in_the_record() -> None:
    members = fresh()
    secrets = [enrol(members, "A"), members.join_tokens.add(JoinTerms(), now=0.0, wall=WALL)]
    text = members.record().model_dump_json()
    assert all(secret.rpartition("~")[2] not in text for secret in secrets)


def test_nobody_enrols_with_another_ones_key() -> None:
    members = fresh()
    enrol(members, "A")
    with pytest.raises(RefusedError, match="device 'A' has this public key") as refused:
        enrol(members, "B", key=key_of("A"))
    assert refused.value.reason == "key-taken"
    enrol(members, "A", key=key_of("A"), replaces=True)


def test_a_device_that_makes_its_own_token_is_told_none_and_only_the_hash_is_known() -> None:
    members = fresh()
    token = make_token("A", entropy(7))
    enrolment = Enrolment(device="A", public_key=key_of("A"), signing_key=key_of("A"), token_hash=hash_token(token))
    assert members.enrol(enrolment, wall=WALL, replaces=False) is None
    assert members.authenticate(token) == "A"


def test_a_member_s_next_token_counts_beside_its_old_one_until_it_is_used() -> None:
    members = fresh()
    old = enrol(members, "A")
    new = make_token("A", entropy(7))
    assert members.rotate("A", hash_token(new)) is None
    assert members.awaits("A")
    again = Members(wall=WALL, entropy=entropy(1), stored=members.record())
    for kept in (members, again):
        assert [kept.authenticate(token) for token in (old, new)] == ["A", "A"]
        kept.set_candidates("A", TOLD, wall=WALL)
        assert not kept.confirm(old)
        assert kept.confirm(new)
        assert not kept.confirm(new)
        assert not kept.confirm("Z~none")
        assert [kept.authenticate(token) for token in (old, new)] == [None, "A"]
    made = members.rotate("A", None)
    assert made is not None
    assert members.authenticate(made) == "A"
    with pytest.raises(RefusedError, match="unknown-device"):
        members.rotate("Z", None)
    version = members.roster().version
    members.rotate("A", None)
    assert members.roster().version == version
