// Reads tasks from the standard input, runs them with transformers.js, and writes the results to the standard output.
//   {"ids": FOLDER, "texts": [...]}                           ids of each text, as AutoTokenizer gives them
//   {"pipeline": TASK, "folder": FOLDER, "texts": [...], "options": {...}}   what the pipeline returns
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoTokenizer, env, pipeline } from "@huggingface/transformers";

env.allowRemoteModels = false;
const results = [];
for (const task of JSON.parse(readFileSync(0, "utf8"))) {
  const folder = task.ids ?? task.folder;
  env.localModelPath = dirname(folder);
  if (task.ids) {
    const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
    results.push(task.texts.map((text) => tokenizer.encode(text, { add_special_tokens: false })));
  } else {
    const run = await pipeline(task.pipeline, basename(folder), { dtype: task.dtype ?? "fp32" });
    const found = await run(task.texts, task.options);
    results.push(found.tolist?.() ?? found);
  }
}
process.stdout.write(JSON.stringify(results));
