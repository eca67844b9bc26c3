package tubthumping.crac;

import java.io.File;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.jar.Attributes;
import java.util.jar.JarFile;
import java.util.jar.Manifest;

/** The files and directories that this JVM itself keeps open, which no application can close. */
final class ClassPath {
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
            // -Xlog:what:file=NAME:decorators:options
            int file = argument.indexOf("file=");
            if (file >= 0) {
                String name = argument.substring(file + "file=".length());
                add(name.contains(":") ? name.substring(0, name.indexOf(':')) : name);
            }
        } else if (argument.startsWith("-Xloggc:")) {
            add(argument.substring("-Xloggc:".length()));
        } else if (argument.startsWith("-XX:SharedArchiveFile=")
                || argument.startsWith("-XX:AOTCache=")) {
            add(argument.substring(argument.indexOf('=') + 1));
        }
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
