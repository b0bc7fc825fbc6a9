// Looks at pages in headless Chromium as people meet them: wide and narrow, by day and by night, folded and unfolded.
// Usage: node look.cjs CHROMIUM PROFILE PAGE...   Writes one JSON object a page, one a line. check.py calls it.
const fs = require("fs");
const puppeteer = require("puppeteer-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [chromium, profile, ...pages] = process.argv.slice(2);
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
  "--disable-sync", "--disable-component-update", "--no-first-run", "--hide-scrollbars"];
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
// 320 CSS pixels is what is left of a screen of 1280 at a zoom of 400 % (WCAG 1.4.10).
const VIEWS = [[1280, "light"], [1280, "dark"], [320, "light"], [320, "dark"]];

// What sticks out to the right and is not inside something that scrolls by itself.
const overflow = () => {
  const wide = document.documentElement.scrollWidth, room = window.innerWidth;
  if (wide <= room) return [];
  const scrolls = (e) => e && e !== document.body && (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const found = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > room + 1 && !scrolls(e.parentElement));
  return [`${wide} px`, ...found.slice(0, 4).map((e) => `${e.tagName.toLowerCase()}.${e.className} ${(e.textContent || "").trim().slice(0, 50)}`)];
};

(async () => {
  const browser = await puppeteer.launch({ executablePath: chromium, headless: true, args: QUIET, userDataDir: profile });
  for (const page of pages) {
    const result = { page, requests: [], complaints: [], violations: [], incomplete: 0, overflow: [], sheets: 0, looks: 0 };
    const note = (tab, bypass) => {
      tab.on("request", (r) => { if (r.url() !== page && !r.url().startsWith("data:")) result.requests.push(r.url()); });
      tab.on("console", (m) => { if (!bypass && ["error", "warning"].includes(m.type())) result.complaints.push(m.text()); });
      tab.on("pageerror", (e) => result.complaints.push(String(e)));
    };
    // As a reader meets it: with its own security policy, which must have nothing to forbid; and on paper.
    const plain = await browser.newPage();
    note(plain, false);
    await plain.goto(page, { waitUntil: "load" });
    const pdf = Buffer.from(await plain.pdf({ format: "A4", preferCSSPageSize: true, timeout: 60000 })).toString("latin1");
    result.sheets = (pdf.match(/\/Type\s*\/Page[^s]/g) || []).length;
    await plain.close();
    // For axe the policy is lifted: then anything that it held back would be fetched, and counted.
    const tab = await browser.newPage();
    await tab.setBypassCSP(true);
    note(tab, true);
    await tab.goto(page, { waitUntil: "networkidle0" });
    await tab.evaluate(AXE);
    for (const [width, scheme] of VIEWS) {
      await tab.setViewport({ width, height: 900 });
      await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      for (const open of [false, true]) {
        await tab.evaluate((open) => document.querySelectorAll("details").forEach((d) => { d.open = open; }), open);
        const view = `${width} ${scheme} ${open ? "unfolded" : "folded"}`;
        if (scheme === "light") (await tab.evaluate(overflow)).forEach((o) => result.overflow.push(`${view}: ${o}`));
        const found = await tab.evaluate((tags) => axe.run(document, { runOnly: { type: "tag", values: tags }, resultTypes: ["violations", "incomplete"] }), TAGS);
        result.looks += 1;
        result.incomplete = Math.max(result.incomplete, found.incomplete.length);
        for (const v of found.violations) {
          result.violations.push({ view, id: v.id, impact: v.impact, help: v.help, count: v.nodes.length,
            nodes: v.nodes.slice(0, 3).map((n) => `${n.target.join(" ")}: ${n.html.slice(0, 160)} ${(n.any[0] || n.all[0] || n.none[0] || {}).message || ""}`) });
        }
      }
    }
    await tab.close();
    process.stdout.write(JSON.stringify(result) + "\n");
  }
  await browser.close();
})().catch((error) => { process.stderr.write(String(error.stack || error) + "\n"); process.exit(3); });
