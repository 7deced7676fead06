// What @huggingface/hub does with a hub, step by step. Usage: node journey.mjs ADDRESS TOKEN NAME-SUFFIX,
// run in a folder where it is installed. Prints one JSON object: step → "ok" or what went wrong.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const home = path.dirname(require.resolve("@huggingface/hub"));
const hub = await import(pathToFileURL(path.join(home, "index.mjs")));
const version = require(path.join(home, "..", "package.json")).version;
const [address, accessToken, suffix] = process.argv.slice(2);
const repo = `alice/js-${suffix}`;
const common = { hubUrl: address, accessToken, repo };
const results = {};

async function step(name, work) {
  try {
    await work();
    results[name] = "ok";
  } catch (error) {
    results[name] = String(error.stack ?? error).slice(0, 300);
  }
}
function check(condition, words) {
  if (!condition) throw new Error(words);
}
const large = new Uint8Array(2_000_000).map((_, index) => index % 251);

await step("whoami", async () => check((await hub.whoAmI(common)).name === "alice", "name"));
await step("create a repository", () => hub.createRepo(common));
await step("upload a file", async () => {
  await hub.uploadFile({ ...common, file: { path: "a/hello.txt", content: new Blob(["hello"]) } });
});
await step("commit: add, copy, delete", async () => {
  await hub.commit({
    ...common,
    title: "several",
    useXet: false,
    operations: [
      { operation: "addOrUpdate", path: "README.md", content: new Blob(["---\nlicense: mit\n---\n# A net\n"]) },
      { operation: "addOrUpdate", path: "large.bin", content: new Blob([large]) },
      { operation: "delete", path: "a/hello.txt" },
    ],
  });
});
await step("tree, paths-info, expand", async () => {
  const names = [];
  for await (const file of hub.listFiles({ ...common, recursive: true })) names.push(file.path);
  check(names.sort().join() === "README.md,large.bin", names.join());
  const [info] = await hub.pathsInfo({ ...common, paths: ["large.bin"] });
  check(info.lfs.size === large.length, "lfs size");
});
await step("download a file (ETag, cache, absence)", async () => {
  const blob = await hub.downloadFile({ ...common, path: "large.bin" });
  const bytes = new Uint8Array(await blob.arrayBuffer());
  check(bytes.length === large.length && bytes.every((value, index) => value === large[index]), "bytes");
  check(await hub.fileExists({ ...common, path: "README.md" }), "exists");
  check(!(await hub.fileExists({ ...common, path: "none" })), "absent");
});
await step("model_info with files and LFS data", async () => {
  const info = await hub.modelInfo({ hubUrl: address, accessToken, name: repo, additionalFields: ["sha"] });
  check(info.name === repo && info.sha.length === 40, JSON.stringify(info));
});
await step("list_models: search, filter, author, sort, pages", async () => {
  const names = [];
  for await (const model of hub.listModels({ hubUrl: address, accessToken, search: { owner: "alice" } }))
    names.push(model.name);
  check(names.includes(repo), names.join());
});
await step("branches, tags, refs, commits", async () => {
  await hub.createBranch({ ...common, branch: "side" });
  await hub.deleteBranch({ ...common, branch: "side" });
  const titles = [];
  for await (const one of hub.listCommits(common)) titles.push(one.title);
  check(titles[0] === "several", titles.join());
});
await step("delete a repository", () => hub.deleteRepo(common));

console.log(JSON.stringify({ version, steps: results }));
