// Which rules of html-validate hold for our pages: all of its recommended and accessibility presets but these.
module.exports = {
  root: true,
  extends: ["html-validate:recommended", "html-validate:a11y"],
  rules: {
    // Matplotlib writes `style="..."` on SVG elements; the policy of the page allows inline style and nothing else.
    "no-inline-style": "off",
    // A table that scrolls sideways must be reachable with the keyboard (WCAG 2.1.1), and is announced with its
    // name: `role="region"` on a <div>, with a tabindex. <section> would put it into the outline of the page.
    "prefer-native-element": ["error", { exclude: ["region", "img"] }],
    // Long lines of numbers come from templates; a blank at the end of a line is nobody's barrier.
    "no-trailing-whitespace": "off",
    // Pages are a megabyte of SVG: spelled-out characters, not entities, and no matter how long a title is.
    "long-title": "off",
  },
};
