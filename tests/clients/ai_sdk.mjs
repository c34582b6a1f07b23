// Vercel's AI SDK against a running baton, by its provider for servers that are compatible with OpenAI's.
//
//     cd tests/clients && npm ci && node ai_sdk.mjs [--url URL] [WORK ...]
//
// WORK is one of the following; all of them unless said otherwise.
//
//     chat        texts, conversations, counts
//     stream      the same texts in pieces
//     object      objects that fit a schema, whole and streamed
//     tools       a forced call, its execution, and the step after it
//     errors      refusals as the SDK's exceptions, cancelled requests
//
// Each line names what was checked. Exits with 1 at the first check that fails.

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateObject, generateText, isStepCount, Output, streamText, tool } from 'ai';
import { z } from 'zod';

import { check, collect, raised, run, same } from './works.mjs';

const QUESTION = 'What is the capital of France? Answer in one sentence.';
// With it an answer takes all its tokens.
const ENDLESS = { maxOutputTokens: 2000, providerOptions: { baton: { ignore_eos: true } } };
const City = z.object({
  name: z.string().max(20),
  size: z.enum(['small', 'large']),
  population: z.number().int().min(0).max(100_000_000),
});

globalThis.AI_SDK_LOG_WARNINGS = false;

class Works {
  constructor(url, model) {
    const settings = { name: 'baton', baseURL: `${url}/v1`, includeUsage: true, supportsStructuredOutputs: true };
    this.provider = createOpenAICompatible(settings);
    this.asked = { model: this.provider(model), maxOutputTokens: 24, temperature: 0, maxRetries: 0 };
  }

  // --- the works ---

  async chat() {
    const answer = await generateText({ ...this.asked, prompt: QUESTION });
    check('a prompt is answered', answer.text, answer);
    check('for a reason', ['stop', 'length'].includes(answer.finishReason), answer.finishReason);
    const { inputTokens, outputTokens } = answer.usage;
    check('tokens are counted', inputTokens > 0 && outputTokens > 0, answer.usage);
    check('there is no reasoning', !answer.reasoningText, answer.reasoning);
    const messages = [
      { role: 'user', content: QUESTION },
      { role: 'assistant', content: answer.text },
      { role: 'user', content: [{ type: 'text', text: 'And of Italy?' }] },
    ];
    const options = { seed: 7, topP: 0.9, presencePenalty: 0.5, frequencyPenalty: 0.5, stopSequences: ['\n\n'] };
    const next = await generateText({ ...this.asked, ...options, instructions: 'Be brief.', messages });
    check('a conversation goes on', next.text && next.usage.inputTokens > inputTokens, next);
  }

  async stream() {
    const whole = await generateText({ ...this.asked, prompt: QUESTION });
    const streamed = streamText({ ...this.asked, prompt: QUESTION });
    const pieces = await collect(streamed.textStream);
    same('a stream has the text of the whole answer', pieces.join(''), whole.text);
    check('in pieces', pieces.length > 3, pieces);
    same('with its counts', (await streamed.usage).outputTokens, whole.usage.outputTokens);
    same('and its reason', await streamed.finishReason, whole.finishReason);
    const left = streamText({ ...this.asked, ...ENDLESS, prompt: QUESTION });
    for await (const _ of left.textStream) break;
    check('the server goes on after a client went away', (await generateText({ ...this.asked, prompt: 'Hi' })).text);
  }

  async object() {
    const asked = { ...this.asked, maxOutputTokens: 200, prompt: 'Describe the city of Paris in JSON.' };
    const { object } = await generateObject({ ...asked, schema: City });
    check('an object fits its schema', City.safeParse(object).success, object);
    const { output } = await generateText({ ...asked, output: Output.object({ schema: City }) });
    same('as an output of text, too', output, object);
    const streamed = streamText({ ...asked, output: Output.object({ schema: City }) });
    const parts = await collect(streamed.partialOutputStream);
    same('a stream ends with it', parts.at(-1), object);
    const chosen = await generateText({ ...asked, output: Output.choice({ options: ['small', 'large'] }) });
    check('a choice is one of its options', ['small', 'large'].includes(chosen.output), chosen.output);
  }

  async tools() {
    const run = [];
    const weather = tool({
      description: 'Tells the weather of a city.',
      inputSchema: z.object({ city: z.string().max(20) }),
      execute: async ({ city }) => {
        run.push(city);
        return { weather: 'sunny' };
      },
    });
    const asked = {
      ...this.asked,
      maxOutputTokens: 100,
      prompt: 'What is the weather in Paris? Use the tool.',
      tools: { weather },
      stopWhen: isStepCount(2),
      // The first step calls the tool, the second one talks about its result.
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
    };
    const answer = await generateText(asked);
    same('there are two steps', answer.steps.length, 2);
    same('the first one ends with a call', answer.steps[0].finishReason, 'tool-calls');
    const [call] = answer.steps[0].toolCalls;
    check('the call runs the tool', call?.toolName === 'weather' && run.length > 0, answer.steps[0]);
    same('which has a result', answer.steps[0].toolResults[0].output, { weather: 'sunny' });
    check('the second one talks', answer.text, answer.steps[1]);
    const named = { toolChoice: { type: 'tool', toolName: 'weather' }, prepareStep: undefined };
    const streamed = streamText({ ...asked, ...named });
    const events = await collect(streamed.stream ?? streamed.fullStream);
    const calls = events.filter((event) => event.type === 'tool-call');
    check('a stream has a named call', calls[0]?.toolName === 'weather' && !calls[0].invalid, events);
  }

  async errors() {
    const other = await raised('an unknown model is not found', APICallError.isInstance,
      () => generateText({ ...this.asked, model: this.provider('no-such-model'), prompt: 'Hi' }));
    same('by its status', other.statusCode, 404);
    const long = await raised('a long prompt is refused', APICallError.isInstance,
      () => generateText({ ...this.asked, prompt: 'word '.repeat(20_000) }));
    same('by its status', long.statusCode, 400);
    check('with a sentence', long.message.includes('maximum context length'), long.message);
    const abortSignal = AbortSignal.timeout(100);
    await raised('a request can be cancelled', (error) => /abort|timeout/i.test(error.name),
      () => generateText({ ...this.asked, ...ENDLESS, prompt: QUESTION, abortSignal }));
    check('the server goes on', (await generateText({ ...this.asked, prompt: 'Hi' })).text);
  }
}

await run(Works, "Vercel's AI SDK against a running baton");
