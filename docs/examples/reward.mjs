// Follows the reward from JavaScript, with nothing of gripwire: npm install, then
//   node reward.mjs [ENDPOINT]
// See ../wire.md for every topic and field.
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const endpoint = process.argv[2] ?? "tcp://127.0.0.1:7603";
const socket = new Subscriber({ receiveTimeout: 1000 }); // milliseconds
socket.subscribe("reward\0"); // the NUL closes the name: not `reward_debug` too
socket.connect(endpoint); // comes back by itself when the service restarts

let boot = "";
let expected = 0n;
for (;;) {
  let parts;
  try {
    parts = await socket.receive();
  } catch (error) {
    if (error.code !== "EAGAIN") throw error;
    console.log("no reward for a second: take it as no success");
    continue;
  }
  // Times are nanoseconds: more than a JavaScript number holds, so all 64-bit integers come as BigInt.
  const reward = decode(parts[1], { useBigInt64: true });
  if (Number(reward.v) !== 1) continue;
  const seq = BigInt(reward.seq);
  if (reward.boot === boot && seq > expected) console.log(`${seq - expected} rewards were lost`);
  [boot, expected] = [reward.boot, seq + 1n];
  console.log(
    reward.valid
      ? `success ${reward.decision} probability ${reward.probability.toFixed(3)}`
      : `no verdict: ${reward.reason}`,
  );
}
