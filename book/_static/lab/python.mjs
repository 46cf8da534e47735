// "Copy as Python": the experiment as a program that runs on the library. The tests run these programs and compare.

import { STARTS } from "./settings.mjs";

const atEnds = `pn.Condition(lambda u, x: u(x), 0.0, on_line.conditions["u"].sampler)`;
const customProblem = (residual, target, exact) => `
on_line = pn.problems.Poisson1D()  # for its points
problem = pn.Problem(
    {
        "u": ${atEnds},
        "r": pn.Condition(${residual}, ${target}, on_line.conditions["r"].sampler),
    },
    (0.0,),
    (1.0,),
    exact=${exact},
)`;

/** A problem for each equation, and what a hard boundary is: the lift, the factor, and the conditions left. */
const PROBLEMS = {
  poisson: ({ a }) => `problem = pn.problems.Poisson1D(a=${a})`,
  layer: ({ eps }) =>
    customProblem(
      `lambda u, x: ${eps} * pn.dd(u, 0)(x) + pn.d(u, 0)(x)`,
      "1.0",
      `lambda x: x[..., 0] - jnp.expm1(-x[..., 0] / ${eps}) / jnp.expm1(-1 / ${eps})`,
    ).trim(),
  own: ({ a, p, q, s }) =>
    [
      `w = ${a} * jnp.pi`,
      customProblem(
        `lambda u, x: ${p} * pn.dd(u, 0)(x) + ${q} * pn.d(u, 0)(x) + ${s} * u(x)`,
        `lambda x: (${s} - ${p} * w**2) * jnp.sin(w * x[0]) + ${q} * w * jnp.cos(w * x[0])`,
        "lambda x: jnp.sin(w * x[..., 0])",
      ).trim(),
    ].join("\n"),
  heat: ({ D, k }) => `problem = pn.problems.Heat1D(diffusivity=${D}, k=${k})`,
  advection: ({ c }) => `problem = pn.problems.Advection1D(c=${c})`,
  wave: () => "problem = pn.problems.Wave1D()",
  helmholtz: ({ a }) => `problem = pn.problems.Helmholtz2D(a2=${a})`,
  burgers: ({ nu }) => `problem = pn.problems.Burgers1D(viscosity=${nu})`,
};

const zeroEnds = ["0.0", "x[0] * (1 - x[0])", "r"];
const HARD = {
  poisson: zeroEnds,
  layer: zeroEnds,
  own: zeroEnds,
  heat: ["problem.exact(x.at[0].set(0.0))", "x[0] * x[1] * (1 - x[1])", "r"],
  advection: ["jnp.sin(x[1])", "x[0]", "b", "r"],
  wave: ["problem.exact(x.at[0].set(0.0))", "x[0] ** 2 * x[1] * (1 - x[1])", "r"],
  helmholtz: ["0.0", "(1 - x[0] ** 2) * (1 - x[1] ** 2)", "r"],
  burgers: ["-jnp.sin(jnp.pi * x[1])", "x[0] * (1 - x[1] ** 2)", "r"],
};

const POINTS = {
  advection: { u: 30, b: 30, r: 300 },
  wave: { u: 90, ut: 30, r: 300 },
  helmholtz: { u: 80, r: 300 },
  heat: { u: 90, r: 300 },
  burgers: { u: 90, r: 300 },
};

const dictionary = (entries) => `{${entries.map(([name, value]) => `"${name}": ${value}`).join(", ")}}`;

/** The program of settings. */
export function program(changes) {
  const settings = { ...STARTS, ...changes };
  const { equation, width, activation, scaled, hard, fourier, seed, optimizer, rate, scheme, fixed, until } = settings;
  const points = POINTS[equation] ?? { u: 2, r: 100 };
  const dim = equation in POINTS ? 2 : 1;
  const [lift, factor, ...left] = HARD[equation];
  const names = hard ? left : Object.keys(points);
  const normal = scaled ? ', **pn.normalization(points["r"])' : "";
  const lines = [
    ...(hard ? ["import dataclasses", ""] : []),
    "import jax",
    "import jax.numpy as jnp",
    "import optax",
    "",
    "import pinnntk_lib as pn",
    "",
    'jax.config.update("jax_enable_x64", True)',
    "",
    PROBLEMS[equation](settings),
  ];
  if (hard) lines.push(`left = ${dictionary(names.map((name) => [name, `problem.conditions["${name}"]`]))}`, "problem = dataclasses.replace(problem, conditions=left)");
  lines.push(`points = problem.points(${dictionary(names.map((name) => [name, points[name]]))})`, "");
  let apply = "model.apply";
  if (fourier > 0) {
    lines.push(`model = pn.MLP(width=${width}, dim=16, activation="${activation}")`);
    lines.push(`B = ${fourier} * jax.random.normal(jax.random.fold_in(jax.random.key(${seed}), 99), (8, ${dim}))`);
    if (scaled) lines.push("inputs = pn.normalization(points[\"r\"])", 'shift, scale = jnp.array(inputs["shift"]), jnp.array(inputs["scale"])');
    const z = scaled ? "(x - shift) / scale" : "x";
    lines.push("", "", "def network(params, x):", `    z = B @ (${z})`, "    return model.apply(params, jnp.concatenate([jnp.cos(z), jnp.sin(z)]))", "", "");
    apply = "network";
  } else lines.push(`model = pn.MLP(width=${width}, dim=${dim}, activation="${activation}"${normal})`);
  if (hard) {
    lines.push("", "", "def apply(params, x):", `    return ${lift} + ${factor} * ${apply}(params, x)`, "", "");
    apply = "apply";
  }
  const optimizers = { sgd: `optax.sgd(${rate})`, adam: `optax.adam(${rate})`, kernel: "pn.kernel_gradient_descent()" };
  const fixedWeights = dictionary(names.map((name) => [name, name === "r" ? "1.0" : `${fixed}.0`]));
  const weights = { equal: "None", fixed: fixedWeights, ntk: "pn.NTKWeights(every=100)" };
  lines.push(
    `params = model.init(jax.random.key(${seed}))`,
    "result = pn.train(",
    `    ${apply},`,
    "    params,",
    "    problem,",
    "    points,",
    `    ${optimizers[optimizer]},`,
    `    steps=${until},`,
    `    weights=${weights[scheme]},`,
    `    test_points=problem.grid(${dim === 1 ? 201 : 41}),`,
    ")",
    'print("relative error:", result.history["error"][-1])',
  );
  return `${lines.join("\n")}\n`.replace(/\n{4,}/g, "\n\n\n");
}
