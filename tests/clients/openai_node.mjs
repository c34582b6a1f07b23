// OpenAI's SDK for Node.js against a running baton: chat and text completions, and Responses, as its users call them.
//
//     cd tests/clients && npm ci && node openai_node.mjs [--url URL] [WORK ...]
//
// WORK is one of the following; all of them unless said otherwise.
//
//     chat            answers, limits, stop strings, seeds, choices, scores
//     stream          the same answers in pieces, the SDK's events, a client that goes away
//     schema          classes of zod, filled by a strict schema
//     tools           forced calls, and the SDK's loop that runs them
//     completions     texts and tokens that are continued
//     responses       OpenAI's Responses
//     errors          refusals as the SDK's exceptions, time limits
//
// Each line names what was checked. Exits with 1 at the first check that fails.

import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import { check, collect, raised, run, same } from './works.mjs';

const QUESTION = [{ role: 'user', content: 'What is the capital of France? Answer in one sentence.' }];
const ASKED = [{ role: 'user', content: 'What is the weather in Paris? Use the tool.' }];
const LONG = [{ role: 'user', content: 'word '.repeat(20_000) }];
// With it an answer takes all its tokens.
const ENDLESS = { max_tokens: 2000, ignore_eos: true };
const City = z.object({
  name: z.string().max(20),
  size: z.enum(['small', 'large']),
  population: z.number().int().min(0).max(100_000_000),
});
const Weather = z.object({ city: z.string().max(20), unit: z.enum(['celsius', 'fahrenheit']) });

const textOf = (answer) => answer.choices[0].message.content;
const pieces = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
const isA = (kind) => (error) => error instanceof kind;

class Works {
  constructor(url, model) {
    this.model = model;
    this.client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 120_000 });
  }

  _body(more = {}) {
    return { model: this.model, messages: QUESTION, max_tokens: 24, temperature: 0, ...more };
  }

  _chat(more = {}, options = {}) {
    return this.client.chat.completions.create(this._body(more), options);
  }

  // --- the works ---

  async chat() {
    const answer = await this._chat();
    check('an answer has text and an id', textOf(answer) && answer.id.startsWith('chatcmpl-'), answer);
    const { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total } = answer.usage;
    check('tokens are counted', prompt > 0 && completion > 0 && total === prompt + completion, answer.usage);
    check('the request has an id', answer._request_id, answer);
    const one = await this._chat({ max_tokens: undefined, max_completion_tokens: 1 });
    same('a limit of one token ends the answer', one.choices[0].finish_reason, 'length');
    const word = textOf(answer).split(' ').at(-1);
    const cut = await this._chat({ stop: word });
    check('a stop string is not part of it', !textOf(cut).includes(word), cut);
    const warm = { temperature: 1, seed: 7, n: 2 };
    const [first, second] = [await this._chat(warm), await this._chat(warm)];
    same('a seed repeats two choices', second.choices, first.choices);
    const scored = await this._chat({ logprobs: true, top_logprobs: 2 });
    const scores = scored.choices[0].logprobs.content;
    check('scores and alternatives come', scores.every((each) => each.top_logprobs.length === 2), scores);
    const models = await collect(this.client.models.list());
    same('the model is listed', models[0].id, this.model);
  }

  async stream() {
    const whole = await this._chat();
    const chunks = await collect(await this._chat({ stream: true, stream_options: { include_usage: true } }));
    same('a stream has the text of the whole answer', pieces(chunks), textOf(whole));
    same('and its counts', chunks.at(-1).usage, whole.usage);
    const runner = this.client.chat.completions.stream(this._body());
    const contents = [];
    runner.on('content', (piece) => contents.push(piece));
    same('the SDK puts it together', await runner.finalContent(), textOf(whole));
    same('and gives it in pieces', contents.join(''), textOf(whole));
    const left = await this._chat({ stream: true, ...ENDLESS });
    for await (const chunk of left) {
      if (chunk.choices[0].delta.content) break;
    }
    check('the server goes on after a client went away', textOf(await this._chat({ max_tokens: 2 })));
  }

  async schema() {
    const messages = [{ role: 'user', content: 'Describe the city of Paris in JSON.' }];
    const asked = this._body({ messages, max_tokens: 200, response_format: zodResponseFormat(City, 'city') });
    const answer = await this.client.chat.completions.parse(asked);
    const { parsed } = answer.choices[0].message;
    check('a class is filled', City.safeParse(parsed).success, answer);
    const streamed = await this.client.chat.completions.stream(asked).finalChatCompletion();
    same('a stream fills it in the same way', streamed.choices[0].message.parsed, parsed);
  }

  async tools() {
    const run = [];
    const tool = zodFunction({
      name: 'get_weather',
      description: 'Tells the weather of a city.',
      parameters: Weather,
      function: (weather) => {
        run.push(weather);
        return 'It is sunny.';
      },
    });
    const named = { type: 'function', function: { name: 'get_weather' } };
    for (const choice of ['required', named]) {
      const asked = this._body({ messages: ASKED, max_tokens: 200, tools: [tool], tool_choice: choice });
      const answer = await this.client.chat.completions.parse({ ...asked, parallel_tool_calls: false });
      const calls = answer.choices[0].message.tool_calls;
      check('a forced call comes', Weather.safeParse(calls[0].function.parsed_arguments).success, answer);
      same('and ends the answer', answer.choices[0].finish_reason, 'tool_calls');
      const result = { role: 'tool', tool_call_id: calls[0].id, content: 'sunny' };
      const messages = [...ASKED, answer.choices[0].message, result];
      const last = await this._chat({ messages, tools: [tool], tool_choice: 'none' });
      check('the conversation goes on with its result', textOf(last), last);
    }
    const asked = this._body({ messages: ASKED, max_tokens: 200, tools: [tool], tool_choice: named });
    const runner = this.client.chat.completions.runTools({ ...asked, stream: true });
    const result = await runner.finalFunctionToolCallResult();
    same("the SDK's loop runs the tool", [run.length, result], [1, 'It is sunny.']);
  }

  async completions() {
    const asked = { model: this.model, prompt: 'The capital of France is', max_tokens: 8, temperature: 0 };
    const answer = await this.client.completions.create(asked);
    const { text } = answer.choices[0];
    const chunks = await collect(await this.client.completions.create({ ...asked, stream: true }));
    same('a stream has the same text', chunks.map((chunk) => chunk.choices[0].text).join(''), text);
    const echoed = await this.client.completions.create({ ...asked, echo: true, logprobs: 1 });
    same('prompt and answer come together', echoed.choices[0].text, asked.prompt + text);
    same('the first token has no score', echoed.choices[0].logprobs.token_logprobs[0], null);
  }

  async responses() {
    const asked = { model: this.model, input: QUESTION[0].content, max_output_tokens: 24, temperature: 0 };
    const answer = await this.client.responses.create(asked);
    check('an answer has text', answer.output_text, answer);
    const events = await collect(await this.client.responses.create({ ...asked, stream: true }));
    const deltas = events.filter((event) => event.type === 'response.output_text.delta');
    same('a stream has the same text', deltas.map((event) => event.delta).join(''), answer.output_text);
    const next = await this.client.responses.create({
      ...asked, input: 'And of Italy?', previous_response_id: answer.id,
    });
    check('a conversation goes on by its id', next.usage.input_tokens > answer.usage.input_tokens, next);
  }

  async errors() {
    const other = await raised('an unknown model is not found', isA(OpenAI.NotFoundError),
      () => this._chat({ model: 'no-such-model' }));
    same('by its code', [other.status, other.code, other.param], [404, 'model_not_found', 'model']);
    for (const stream of [false, true]) {
      const long = await raised('a long prompt is refused', isA(OpenAI.BadRequestError),
        () => this._chat({ messages: LONG, stream }));
      same('by its code', long.code, 'context_length_exceeded');
    }
    await raised('a time limit ends a request', isA(OpenAI.APIConnectionTimeoutError),
      () => this._chat(ENDLESS, { timeout: 50 }));
    await raised('a request can be cancelled', isA(OpenAI.APIUserAbortError),
      () => this._chat(ENDLESS, { signal: AbortSignal.timeout(100) }));
    check('the server goes on', textOf(await this._chat({ max_tokens: 2 })));
  }
}

await run(Works, "OpenAI's SDK for Node.js against a running baton");
