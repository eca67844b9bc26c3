package tubthumping.crac;

import java.io.File;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.reflect.Method;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.jar.Attributes;
import java.util.jar.JarFile;
import java.util.jar.Manifest;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The files and directories that this JVM itself keeps open, which no application can close. */
final class ClassPath {
    private static final String FILE = "file=";

    /** JVM(since 17): what is filled into names of logs: id, time of the start, and on 25 the name of the host. */
    private static final Map<String, String> PLACEHOLDERS =
            Map.of("%p", "\\d+", "%t", "[-_\\d]+", "%hn", "[^/]+");

    private static final Pattern PLACEHOLDER = Pattern.compile("%(?:p|t|hn)");

    /** A line of the list of logs. */
    private static final Pattern LOG = Pattern.compile("(?m)^ *#\\d+: file=(.*?) all=");

    private final Set<Path> paths = new LinkedHashSet<>();

    private ClassPath() {}

    static List<String> allowedPaths() {
        ClassPath classPath = new ClassPath();
        classPath.add(System.getProperty("java.home"));
        classPath.addAll(System.getProperty("java.class.path"));
        classPath.addAll(System.getProperty("jdk.module.path"));
        classPath.addAll(System.getProperty("jdk.module.upgrade.path"));
        for (String argument : ManagementFactory.getRuntimeMXBean().getInputArguments()) {
            classPath.addArgument(argument);
        }
        classPath.addLogsOfNow();
        List<String> allowed = new ArrayList<>();
        for (Path path : classPath.paths) {
            allowed.add(path.toString());
        }
        return allowed;
    }

    private void addArgument(String argument) {
        if (argument.startsWith("-javaagent:") || argument.startsWith("-agentpath:")) {
            String file = argument.substring(argument.indexOf(':') + 1);
            add(file.contains("=") ? file.substring(0, file.indexOf('=')) : file);
        } else if (argument.startsWith("-Xbootclasspath/a:")) {
            addAll(argument.substring(argument.indexOf(':') + 1));
        } else if (argument.startsWith("-Xlog:")) {
            addLog(logFile(argument.substring("-Xlog:".length())));
        } else if (argument.startsWith("-Xloggc:")) {
            addLog(argument.substring("-Xloggc:".length()));
        } else if (argument.startsWith("-XX:LogFile=")) {
            addLog(argument.substring("-XX:LogFile=".length()));
        } else if (argument.equals("-XX:+LogVMOutput") || argument.equals("-XX:+LogCompilation")) {
            // JVM(since 17): unless LogFile says otherwise; same on 25.
            addLog("hotspot_pid%p.log");
        } else if (argument.startsWith("-XX:SharedArchiveFile=")
                || argument.startsWith("-XX:AOTCache=")) {
            add(argument.substring(argument.indexOf('=') + 1));
        }
    }

    /**
     * The name of the file in {@code what:output:decorators:options}, empty for none.
     *
     * <p>JVM(since 17): colons within quotes part nothing, and an output of no kind is a file; same on 25.
     */
    private static String logFile(String option) {
        int start = indexOfColon(option, 0);
        if (start < 0) {
            return "";
        }
        String output = option.substring(start + 1, endOfField(option, start + 1));
        if (output.equals("stdout") || output.equals("stderr")) {
            return "";
        }
        return (output.startsWith(FILE) ? output.substring(FILE.length()) : output).replace("\"", "");
    }

    private static int endOfField(String option, int from) {
        int colon = indexOfColon(option, from);
        return colon < 0 ? option.length() : colon;
    }

    private static int indexOfColon(String option, int from) {
        boolean isQuoted = false;
        for (int i = from; i < option.length(); i++) {
            isQuoted ^= option.charAt(i) == '"';
            if (option.charAt(i) == ':' && !isQuoted) {
                return i;
            }
        }
        return -1;
    }

    /** A log, whose name may be one that the JVM has filled in: then it is among what is open. */
    private void addLog(String name) {
        if (name.indexOf('%') < 0) {
            add(name);
            return;
        }
        try {
            Pattern filledIn = filledIn(name);
            for (OpenDescriptor descriptor : OpenDescriptor.all()) {
                if (descriptor.isFile() && filledIn.matcher(descriptor.name()).matches()) {
                    paths.add(OpenDescriptor.pathOf(descriptor.name()));
                }
            }
        } catch (IllegalArgumentException e) {
            // No name of a file.
        }
    }

    /**
     * Logs that {@code jcmd PID VM.log} has the JVM write. It is only asked where a file is open that may be one.
     *
     * <p>JVM(since 17): {@code DiagnosticCommandImpl} with the names below, which takes no server of beans; the
     * command writes {@code #2: file=NAME all=…}; same on 25.
     */
    private void addLogsOfNow() {
        if (OpenDescriptor.all().stream().noneMatch(this::mayBeLog)) {
            return;
        }
        try {
            Class<?> commands = Internals.type("com.sun.management.internal.DiagnosticCommandImpl");
            Object bean = Internals.call(Internals.method(commands, "getDiagnosticCommandMBean"), null);
            Method execute = Internals.method(commands, "executeDiagnosticCommand", String.class);
            Matcher logs = LOG.matcher((String) Internals.call(execute, bean, "VM.log list"));
            while (logs.find()) {
                addLog(logs.group(1).replace("\"", ""));
            }
        } catch (Exception | LinkageError e) {
            // A runtime without such commands, to which nobody can have said so.
        }
    }

    private boolean mayBeLog(OpenDescriptor descriptor) {
        if (!descriptor.kind().equals("regular") || descriptor.isOwn() || descriptor.isReadOnly()) {
            return false;
        }
        Path path = OpenDescriptor.pathOf(descriptor.name());
        return paths.stream().noneMatch(path::startsWith);
    }

    /** What the kernel may call a log of this name. A copy goes on with that of the original, whose id is another. */
    private static Pattern filledIn(String name) {
        Path file = Path.of(name).toAbsolutePath().normalize();
        try {
            file = file.getParent().toRealPath().resolve(file.getFileName());
        } catch (IOException e) {
            // The name of the directory is filled in as well.
        }
        Matcher placeholder = PLACEHOLDER.matcher(file.toString());
        StringBuilder pattern = new StringBuilder();
        int end = 0;
        while (placeholder.find()) {
            pattern.append(Pattern.quote(file.toString().substring(end, placeholder.start())));
            pattern.append(PLACEHOLDERS.get(placeholder.group()));
            end = placeholder.end();
        }
        return Pattern.compile(pattern.append(Pattern.quote(file.toString().substring(end))).toString());
    }

    private void addAll(String list) {
        if (list != null) {
            for (String element : list.split(File.pathSeparator)) {
                add(element);
            }
        }
    }

    private void add(String name) {
        if (name == null || name.isEmpty()) {
            return;
        }
        try {
            // The kernel shows descriptors by their real path, links followed.
            Path path = Path.of(name).toRealPath();
            if (paths.add(path) && Files.isRegularFile(path) && name.endsWith(".jar")) {
                addManifestEntries(path);
            }
        } catch (IOException | IllegalArgumentException e) {
            // What is not there is not open.
        }
    }

    /** A jar's manifest can name more jars, which is how most applications are packed. */
    private void addManifestEntries(Path jar) throws IOException {
        String more;
        try (JarFile file = new JarFile(jar.toFile())) {
            Manifest manifest = file.getManifest();
            more =
                    manifest == null
                            ? null
                            : manifest.getMainAttributes().getValue(Attributes.Name.CLASS_PATH);
        }
        if (more == null) {
            return;
        }
        Collection<String> entries = List.of(more.trim().split("\\s+"));
        for (String entry : entries) {
            if (!entry.isEmpty()) {
                URI location = jar.toUri().resolve(entry);
                if ("file".equals(location.getScheme())) {
                    add(Path.of(location).toString());
                }
            }
        }
    }
}
