// A page of React components that count, as programs write them.

import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { flushSync } from "react-dom";
import { useEvent, useTidings } from "../dist/react.js";
import { tokens } from "./model.js";

const { url, secret, topics } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const token = tokens(secret, "react", topics, 60);
const reduce = (state, { topic, data }) => ({ ...state, [topic]: data });

function Counts({ id, topics }) {
  const { state, status, store } = useTidings({ url, topics, token, reduce });
  const [heard, setHeard] = useState([]);
  useEvent(store, "counted", ({ topic, data }) => setHeard((heard) => [...heard, `${topic} ${data.n}`]));
  return <output id={id}>{JSON.stringify({ is: status.is, state: state ?? null, heard })}</output>;
}

function App() {
  const [views, setViews] = useState([]);
  globalThis.setViews = (views) => flushSync(() => setViews(views));
  return views.map(({ id, topics }) => <Counts key={id} id={id} topics={topics} />);
}

createRoot(document.body).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
