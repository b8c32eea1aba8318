// BullMQ: its worker and its producer. NODE_PATH says where its packages are.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { Queue, Worker } = require("bullmq");

const QUEUE = "bench";
const BATCH = 500;
const url = new URL(process.env.REDIS_URL);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };

async function enqueue(jobs) {
  const body = "x".repeat(Number(process.env.BENCH_BODY_BYTES));
  const queue = new Queue(QUEUE, { connection });
  for (let start = 0; start < jobs; start += BATCH) {
    const job = { name: "noop", data: { body }, opts: { removeOnComplete: true } };
    await queue.addBulk(Array(Math.min(BATCH, jobs - start)).fill(job));
  }
  await queue.close();
}

async function wait() {
  const gate = process.env.BENCH_GATE;
  fs.writeFileSync(path.join(gate, `ready-${process.pid}`), "");
  while (!fs.existsSync(path.join(gate, "open"))) await new Promise((r) => setTimeout(r, 1));
}

async function work() {
  const concurrency = Number(process.env.BENCH_CONCURRENCY);
  const worker = new Worker(QUEUE, async () => {}, { connection, concurrency, autorun: false });
  await worker.waitUntilReady();
  await wait();
  await worker.run();
}

const [verb, number] = process.argv.slice(2);
(verb === "work" ? work() : enqueue(Number(number))).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
