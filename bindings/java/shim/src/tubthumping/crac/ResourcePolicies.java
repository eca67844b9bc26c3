package tubthumping.crac;

import java.io.IOException;
import java.net.Inet4Address;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.PathMatcher;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * What becomes of descriptors that the application leaves open: the rules of the file that {@code
 * -Djdk.crac.resource-policies} or {@code TUB_POLICY} names, in the form of CRaC's.
 *
 * <p>In: the text of the file, and descriptors. Out: the rule for each.
 *
 * <p>Invariant: what is not understood is refused with its line, never skipped: a rule that did
 * nothing would be found out in production.
 *
 * <p>Not here: what is done with a descriptor ({@link LeftOpen}).
 */
final class ResourcePolicies {
    static final String PROPERTY = "jdk.crac.resource-policies";

    private static final String VARIABLE = "TUB_POLICY";
    private static final ResourcePolicies NONE = new ResourcePolicies("", List.of());

    enum Type {
        FILE,
        PIPE,
        SOCKET,
        FILEDESCRIPTOR
    }

    enum Action {
        ERROR,
        IGNORE,
        CLOSE,
        REOPEN
    }

    /** One block of the file. */
    record Rule(Type type, Action action, boolean warns, Predicate<OpenDescriptor> selector) {}

    private final String text;
    private final List<Rule> rules;

    private ResourcePolicies(String text, List<Rule> rules) {
        this.text = text;
        this.rules = rules;
    }

    /**
     * The rules that hold now: those of {@code tub run --policy} before those of the property.
     *
     * @throws IllegalStateException if there is no such file, or it is not understood
     */
    static ResourcePolicies current() {
        String file = System.getenv(VARIABLE);
        String by = "variable " + VARIABLE;
        if (file == null || file.isEmpty()) {
            file = System.getProperty(PROPERTY);
            by = "property " + PROPERTY;
        }
        if (file == null || file.isEmpty()) {
            return NONE;
        }
        String what = "File " + file + " used in " + by;
        try {
            Path path = Path.of(file);
            if (!Files.exists(path)) {
                throw new IllegalStateException(what + " does not exist");
            }
            if (!Files.isRegularFile(path)) {
                throw new IllegalStateException(what + " is not a regular file");
            }
            return parse(file, new String(Files.readAllBytes(path), StandardCharsets.UTF_8));
        } catch (IOException | InvalidPathException e) {
            throw new IllegalStateException(what + " cannot be read: " + e, e);
        }
    }

    /** The rules of a text that stands in {@code file}. */
    static ResourcePolicies parse(String file, String text) {
        List<Rule> rules = new ArrayList<>();
        Block block = new Block(file, 1);
        int number = 0;
        for (String raw : text.split("\\R", -1)) {
            number++;
            String line = raw.trim();
            if (line.equals("---")) {
                block.finish(number - 1, rules);
                block = new Block(file, number + 1);
            } else if (!line.isEmpty() && !line.startsWith("#")) {
                block.add(number, line);
            }
        }
        block.finish(number, rules);
        return new ResourcePolicies(text, rules);
    }

    boolean isEmpty() {
        return rules.isEmpty();
    }

    boolean sameAs(ResourcePolicies other) {
        return text.equals(other.text);
    }

    /**
     * The first rule that fits a descriptor; {@code null} for none. As with CRaC, rules for numbers
     * are for what no rule for its kind fits.
     */
    Rule of(OpenDescriptor descriptor) {
        Type type = null;
        if (descriptor.isSocket()) {
            type = Type.SOCKET;
        } else if (descriptor.isPipe()) {
            type = Type.PIPE;
        } else if (descriptor.isFile()) {
            type = Type.FILE;
        }
        Rule found = type == null ? null : first(type, descriptor);
        return found == null ? first(Type.FILEDESCRIPTOR, descriptor) : found;
    }

    private Rule first(Type type, OpenDescriptor descriptor) {
        for (Rule rule : rules) {
            if (rule.type == type && rule.selector.test(descriptor)) {
                return rule;
            }
        }
        return null;
    }

    /** One block while it is read. */
    private static final class Block {
        private static final Map<Type, Set<String>> KEYS =
                Map.of(
                        Type.FILE,
                        Set.of("path"),
                        Type.PIPE,
                        Set.of(),
                        Type.SOCKET,
                        Set.of(
                                "family",
                                "localaddress",
                                "remoteaddress",
                                "localport",
                                "remoteport",
                                "localpath",
                                "remotepath",
                                "listening"),
                        Type.FILEDESCRIPTOR,
                        Set.of("value", "regex"));

        private final String file;
        private final int from;
        private final Map<String, String> values = new HashMap<>();
        private final Map<String, Integer> lines = new HashMap<>();

        Block(String file, int from) {
            this.file = file;
            this.from = from;
        }

        void add(int number, String line) {
            int colon = line.indexOf(": ");
            if (colon <= 0) {
                throw invalid(number, "cannot parse line " + number + ": " + line);
            }
            String key = line.substring(0, colon).trim().toLowerCase(Locale.ROOT);
            values.put(key, line.substring(colon + 2).trim());
            lines.put(key, number);
        }

        void finish(int to, List<Rule> rules) {
            if (values.isEmpty()) {
                return;
            }
            Type type = constant(Type.class, "type", to);
            Action action = constant(Action.class, "action", to);
            boolean warns = !"false".equalsIgnoreCase(values.getOrDefault("warn", "true"));
            for (String key : values.keySet()) {
                boolean known = Set.of("type", "action", "warn").contains(key);
                if (!known && !KEYS.get(type).contains(key)) {
                    throw bad(key, to, "not known for type " + name(type));
                }
            }
            if (type == Type.FILEDESCRIPTOR && action == Action.REOPEN) {
                throw bad("action", to, "not possible for type filedescriptor");
            }
            if (type == Type.FILEDESCRIPTOR && values.size() < (lines.containsKey("warn") ? 4 : 3)) {
                throw invalid(to, "no 'value' or 'regex'");
            }
            Predicate<OpenDescriptor> selector = descriptor -> true;
            for (String key : KEYS.get(type)) {
                if (values.containsKey(key)) {
                    selector = selector.and(selector(key, to));
                }
            }
            rules.add(new Rule(type, action, warns, selector));
        }

        private Predicate<OpenDescriptor> selector(String key, int to) {
            String value = values.get(key);
            try {
                return switch (key) {
                    case "path" -> path(value);
                    case "family" -> family(value);
                    case "localaddress" -> address(value, OpenDescriptor::local);
                    case "remoteaddress" -> address(value, OpenDescriptor::remote);
                    case "localport" -> port(value, OpenDescriptor::localPort);
                    case "remoteport" -> port(value, OpenDescriptor::remotePort);
                    case "localpath" -> socketPath(value, OpenDescriptor::local);
                    case "remotepath" -> socketPath(value, OpenDescriptor::remote);
                    case "listening" -> {
                        boolean wanted = truth(value);
                        yield descriptor -> descriptor.isListening() == wanted;
                    }
                    case "value" -> {
                        int number = Integer.parseInt(value);
                        yield descriptor -> descriptor.number() == number;
                    }
                    default -> {
                        Pattern pattern = Pattern.compile(value);
                        yield descriptor ->
                                pattern.matcher(descriptor.description()).find()
                                        || pattern.matcher(descriptor.name()).find();
                    }
                };
            } catch (PatternSyntaxException e) {
                throw bad(key, to, e.getDescription());
            } catch (IllegalArgumentException | UnknownHostException e) {
                throw bad(key, to, "not understood");
            }
        }

        private <E extends Enum<E>> E constant(Class<E> type, String key, int to) {
            String value = values.get(key);
            if (value == null) {
                throw invalid(to, "no '" + key + "'");
            }
            try {
                return Enum.valueOf(type, value.toUpperCase(Locale.ROOT));
            } catch (IllegalArgumentException e) {
                throw bad(key, to, "not known");
            }
        }

        private IllegalStateException bad(String key, int to, String why) {
            String text = key + " '" + values.get(key) + "'";
            return invalid(to, "line " + lines.get(key) + ": " + text + " is " + why);
        }

        private IllegalStateException invalid(int to, String problem) {
            return new IllegalStateException(
                    "Invalid rule in policies file "
                            + file
                            + " on lines "
                            + from
                            + "-"
                            + to
                            + ": "
                            + problem);
        }

        private static String name(Type type) {
            return type.name().toLowerCase(Locale.ROOT);
        }
    }

    private static boolean truth(String value) {
        return switch (value.toLowerCase(Locale.ROOT)) {
            case "true" -> true;
            case "false" -> false;
            default -> throw new IllegalArgumentException(value);
        };
    }

    private static Predicate<OpenDescriptor> path(String glob) {
        PathMatcher matcher = FileSystems.getDefault().getPathMatcher("glob:" + glob);
        return descriptor -> matcher.matches(OpenDescriptor.pathOf(descriptor.name()));
    }

    private static Predicate<OpenDescriptor> socketPath(String glob, End end) {
        PathMatcher matcher = FileSystems.getDefault().getPathMatcher("glob:" + glob);
        return descriptor ->
                descriptor.family().equals("unix")
                        && matcher.matches(OpenDescriptor.pathOf(end.of(descriptor)));
    }

    private static Predicate<OpenDescriptor> family(String value) {
        return switch (value.toLowerCase(Locale.ROOT)) {
            case "ip", "inet" -> descriptor -> descriptor.family().equals("inet");
            case "ipv4", "inet4" -> descriptor -> isOf(descriptor, Inet4Address.class);
            case "ipv6", "inet6" -> descriptor -> isOf(descriptor, Inet6Address.class);
            case "unix" -> descriptor -> descriptor.family().equals("unix");
            default -> throw new IllegalArgumentException(value);
        };
    }

    /** A socket for any address of v6 is one for any address of v4 as well. */
    private static boolean isOf(OpenDescriptor descriptor, Class<?> type) {
        if (!descriptor.family().equals("inet")) {
            return false;
        }
        InetAddress address = OpenDescriptor.address(descriptor.local());
        return address != null && (address.isAnyLocalAddress() || type.isInstance(address));
    }

    private static Predicate<OpenDescriptor> address(String value, End end)
            throws UnknownHostException {
        if (value.equals("*")) {
            return descriptor -> descriptor.family().equals("inet");
        }
        InetAddress wanted = InetAddress.getByName(value);
        return descriptor -> {
            if (!descriptor.family().equals("inet")) {
                return false;
            }
            InetAddress found = OpenDescriptor.address(end.of(descriptor));
            boolean both = found != null && found.isAnyLocalAddress() && wanted.isAnyLocalAddress();
            return both || wanted.equals(found);
        };
    }

    private static Predicate<OpenDescriptor> port(String value, End end) {
        if (value.equals("*")) {
            return descriptor -> descriptor.family().equals("inet");
        }
        int wanted = Integer.parseInt(value);
        return descriptor -> end.of(descriptor).equals(Integer.toString(wanted));
    }

    private interface End {
        String of(OpenDescriptor descriptor);
    }
}
