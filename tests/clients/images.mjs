// Draws with the npm package `openai`: node images.mjs CASE URL PICTURE prints what came as JSON.
import { readFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const [, , name, baseURL, picture] = process.argv;
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const small = { prompt: "a red house on a meadow at day", size: "128x96", seed: 7, steps: 4 };

const cases = {
    async generate() {
        const reply = await client.images.generate({ ...small, n: 2, quality: "auto" });
        return { ...reply, agent: process.version };
    },
    async stream() {
        const events = [];
        const stream = await client.images.generate({
            ...small, size: "256x256", steps: 12, stream: true, partial_images: 2,
        });
        for await (const event of stream) events.push(event);
        return events;
    },
    async edit() {
        const image = await toFile(readFileSync(picture), "house.png", { type: "image/png" });
        return client.images.edit({ ...small, image, strength: 0.6 });
    },
    async mask() {
        const image = await toFile(readFileSync(picture), "house.png", { type: "image/png" });
        const hole = readFileSync(picture.replace("house", "mask"));
        const mask = await toFile(hole, "mask.png", { type: "image/png" });
        return client.images.edit({ ...small, image, mask, mask_blur: 0 });
    },
    async error() {
        try {
            await client.images.generate({ ...small, size: "7x7" });
        } catch (error) {
            const { status, message, code, param, type } = error;
            const isBadRequest = error instanceof OpenAI.BadRequestError;
            return { isBadRequest, status, message, code, param, type };
        }
    },
    async models() {
        const ids = [];
        for await (const model of client.models.list()) ids.push(model.id);
        return { ids, found: await client.models.retrieve("doodle") };
    },
};

console.log(JSON.stringify(await cases[name]()));
