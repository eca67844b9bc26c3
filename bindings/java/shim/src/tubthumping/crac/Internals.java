package tubthumping.crac;

import java.nio.charset.StandardCharsets;

/** Opens packages of the JDK that the resources of this package need, and no others. */
final class Internals {
    private Internals() {}

    static void open(Module module, String name) {
        byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
        if (!Agent.openPackage(module, bytes, Internals.class.getModule())) {
            throw new IllegalStateException(module + ": package " + name + " cannot be opened");
        }
    }
}
